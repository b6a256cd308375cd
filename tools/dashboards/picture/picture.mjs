// Draws the dashboard as pictures, one for each of its rows, for documents and to see that
// it reads well: board.jsx, bundled, in a Chromium without a window.
// Usage: picture.mjs BOARD.json ANSWERS.json FOLDER
// ANSWERS.json is what scene.py wrote: the answer of a Prometheus to every query.

import { mkdirSync, readFileSync } from "node:fs";
import { build } from "esbuild";
import { chromium } from "playwright-core";

const WIDTH_PX = 1200;
const [board, answers] = process.argv.slice(2, 4).map((path) => JSON.parse(readFileSync(path)));
const folder = process.argv[4];

const { outputFiles } = await build({
  entryPoints: [`${import.meta.dirname}/board.jsx`], bundle: true, write: false, outdir: "unused", jsx: "automatic",
  define: { "process.env.NODE_ENV": '"production"', global: "window" }, loader: { ".ttf": "empty", ".woff": "empty", ".woff2": "dataurl" }, minify: true,
  logLevel: "error",
});
const bundled = (end) => outputFiles.find(({ path }) => path.endsWith(end)).text;

mkdirSync(folder, { recursive: true });
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});
try {
  for (const row of board.panels.filter(({ type }) => type === "row")) {
    const page = await browser.newPage({ viewport: { width: WIDTH_PX, height: 800 } });
    page.on("pageerror", (error) => { throw error; });
    page.on("console", (said) => said.type() === "error" && console.error(said.text()));
    // An origin of its own, without which a page has no localStorage; nothing is fetched.
    await page.route("**", (route) => route.fulfill({
      contentType: "text/html", body: "<!doctype html><meta charset=utf-8><body style='margin:0'></body>" }));
    await page.goto("http://board.test/");
    await page.addStyleTag({ content: bundled(".css") });
    await page.addScriptTag({ content: bundled(".js") });
    // Text in a canvas takes another font until this one is there.
    await page.evaluate(() => Promise.all(["400", "500"].map((weight) => document.fonts.load(`${weight} 12px Inter`))));
    const empty = await page.evaluate((drawn) => window.draw(...drawn), [board, answers, row.id, WIDTH_PX]);
    empty.forEach((title) => console.log(`${row.title}: ${title} is empty`));
    await page.locator("#board canvas, #board h4").first().waitFor();
    await page.evaluate(() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn))));
    // Of settings that are off in the scene.
    if (await page.locator("#board canvas").count() === 0) {
      await page.close();
      continue;
    }
    const name = row.title.toLowerCase().split(/[^a-z]/)[0];
    await page.locator("#board").screenshot({ path: `${folder}/dashboard-${name}.png` });
    await page.close();
  }
} finally {
  await browser.close();
}
