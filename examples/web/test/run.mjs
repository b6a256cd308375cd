// What a person sees of the page in Chromium, against the built binary on another origin.
// Usage: run.mjs USER-SERVICE [SCREENSHOT]. The output is that of `cargo test`.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";
import { serve } from "../serve.mjs";

const [binary, screenshot] = process.argv.slice(2);
const folder = mkdtempSync(`${tmpdir()}/user-service-web-`);
/** How long anything may take before it counts as hanging. */
const TIMEOUT_MS = 30_000;

const pages = await serve(0);
const origin = `http://127.0.0.1:${pages.address().port}`;

/** Starts the service, and returns once it serves. */
async function start(port) {
  const flags = ["--grpc-addr", `127.0.0.1:${port}`, "--admin-addr", "127.0.0.1:0", "--store-url", `sqlite:${folder}/users.db`,
    "--cors-allowed-origins", origin, "--log-format", "json", "--call-log", "false"];
  const child = spawn(binary, flags, { stdio: ["ignore", "ignore", "pipe"] });
  let addr;
  for await (const line of createInterface({ input: child.stderr })) {
    const { fields, message, grpc_addr } = JSON.parse(line);
    addr = fields?.grpc_addr ?? grpc_addr ?? addr;
    if ((fields?.message ?? message) === "serving") break;
  }
  child.stderr.resume();
  return { child, addr };
}

/** Ends the service as a supervisor does. */
function stop({ child }) {
  return new Promise((ended) => child.once("exit", ended) && child.kill("SIGTERM"));
}

let server = await start(0);
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});
const page = await browser.newPage({ viewport: { width: 1180, height: 620 } });
page.setDefaultTimeout(TIMEOUT_MS);
const wrong = [];
page.on("pageerror", (error) => wrong.push(String(error)));

const rows = page.locator("#users tr");
const text = (id) => page.locator(`#${id}`);
const shows = (locator, expected) => locator.filter({ hasText: expected }).first().waitFor();
const fill = async (user) => {
  for (const [name, value] of Object.entries(user)) await page.fill(`#edit input[name=${name}]`, String(value));
};
const create = async (user) => {
  await fill(user);
  await page.click("#save");
  await shows(page.locator("#changes li"), `created: ${user.name}`);
};
const tests = {
  async a_user_is_created_and_listed() {
    await page.goto(`${origin}/?server=http://${server.addr}`);
    await shows(text("live"), /^live$/);
    await create({ name: "Ada Lovelace", email: "ada@example.com", age: 36 });
    await shows(rows, "ada@example.com");
  },
  async each_wrong_field_is_told_next_to_it() {
    await fill({ name: "", email: "nobody", age: 200 });
    await page.click("#save");
    await shows(page.locator("[data-field='user.name']"), "must not be empty");
    await shows(page.locator("[data-field='user.email']"), "must be an e-mail address");
    await shows(page.locator("[data-field='user.age']"), "must be 0 to 150");
    assert.equal(await page.locator("input[aria-invalid=true]").count(), 3);
    await fill({ name: "Grace Hopper", email: "ada@example.com", age: 85 });
    await page.click("#save");
    await shows(text("edit-error"), "There is a user with this e-mail address.");
    assert.equal(await page.locator("input[aria-invalid=true]").count(), 0);
    await create({ name: "Grace Hopper", email: "grace@example.com", age: 85 });
  },
  async a_user_is_found_by_address_and_one_that_is_not_there_is_not() {
    await page.fill("#find input", "ADA@example.com");
    await page.click("#find button");
    await shows(text("found"), "Ada Lovelace, 36");
    await page.fill("#find input", "nobody@example.com");
    await page.click("#find button");
    await shows(text("find-error"), "There is no such user.");
  },
  async an_edit_of_a_user_that_was_changed_meanwhile_is_refused() {
    const ada = rows.filter({ hasText: "ada@example.com" });
    await ada.getByText("Edit").click();
    const other = await browser.newPage();
    await other.goto(page.url());
    await other.locator("#users tr", { hasText: "ada@example.com" }).getByText("Edit").click();
    await other.fill("#edit input[name=age]", "37");
    await other.click("#save");
    await shows(rows, "37");
    await other.close();
    await page.fill("#edit input[name=name]", "Ada King");
    await page.click("#save");
    await shows(text("edit-error"), "This user was changed since it was loaded.");
    await page.click("#reload");
    await page.locator("#edit-error", { hasText: /^$/ }).waitFor({ state: "attached" });
    await page.waitForFunction(() => document.querySelector("#edit input[name=age]").value === "37");
    await page.fill("#edit input[name=name]", "Ada King");
    await page.click("#save");
    await shows(rows, "Ada King");
  },
  async the_list_is_turned_page_by_page() {
    for (let number = 1; number <= 12; number += 1) {
      await create({ name: `User ${number}`, email: `user-${number}@example.com`, age: 20 + number });
    }
    await page.waitForFunction(() => document.querySelectorAll("#users tr").length === 10);
    await page.click("#next");
    await shows(text("page"), "page 2");
    assert.equal(await rows.count(), 4);
    assert.equal(await page.isDisabled("#next"), true);
    await page.click("#previous");
    await shows(text("page"), "page 1");
    await fill({ name: "", email: "nobody", age: 200 });
    await page.click("#save");
    await shows(page.locator("[data-field='user.email']"), "must be an e-mail address");
    if (screenshot) await page.screenshot({ path: screenshot });
  },
  async changes_go_on_after_the_server_was_restarted() {
    const before = await page.locator("#changes li").count();
    const { addr } = server;
    await stop(server);
    await shows(text("live"), "reconnecting");
    await fill({ name: "Lost", email: "lost@example.com", age: 1 });
    await page.click("#save");
    await shows(text("edit-error"), "The server cannot be reached.");
    server = await start(addr.split(":")[1]);
    await shows(text("live"), /^live$/);
    // Sent again with the same request id.
    await page.click("#save");
    await shows(page.locator("#changes li"), "created: Lost");
    assert.equal(await page.locator("#changes li").count(), before + 1, "each change is told once");
  },
  async a_deleted_user_goes_from_the_page() {
    await rows.filter({ hasText: "grace@example.com" }).getByText("Delete").click();
    await shows(page.locator("#changes li"), "deleted:");
    await rows.filter({ hasText: "grace@example.com" }).waitFor({ state: "detached" });
  },
  async grpc_webs_own_client_calls_in_both_of_its_formats() {
    for (const [number, format] of ["binary", "text"].entries()) {
      await page.goto(origin);
      await page.addScriptTag({ url: `${origin}/grpc_web.js`, type: "module" });
      await page.waitForFunction(() => window.calls);
      const email = `web-${number}@example.com`;
      const came = await page.evaluate((of) => window.calls(...of), [`http://${server.addr}`, format, email]);
      assert.deepEqual({ ...came, message: undefined }, { found: email, code: 5, message: undefined, details: true,
        watched: format === "text" ? "Ada" : undefined });
    }
  },
};

const began = performance.now();
let passed = 0;
for (const [name, test] of Object.entries(tests)) {
  try {
    await test();
    assert.deepEqual(wrong, [], "errors of the page");
    passed += 1;
    console.log(`test web::${name} ... ok`);
  } catch (error) {
    console.log(`${error.stack}\n${await page.locator("body").innerText().catch(String)}\ntest web::${name} ... FAILED`);
  }
}
await browser.close();
pages.closeAllConnections();
pages.close();
await stop(server);
rmSync(folder, { recursive: true });
const failed = Object.keys(tests).length - passed;
console.log(`test result: ${failed ? "FAILED" : "ok"}. ${passed} passed; ${failed} failed; ` +
  `finished in ${((performance.now() - began) / 1000).toFixed(0)}s`);
process.exitCode = failed ? 1 : 0;
