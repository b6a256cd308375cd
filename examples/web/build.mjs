// Bundles the page, and the client that its test brings, into dist/.
import { copyFileSync, mkdirSync } from "node:fs";
import { build } from "esbuild";

const here = (path) => `${import.meta.dirname}/${path}`;
mkdirSync(here("dist"), { recursive: true });
await build({
  entryPoints: [here("src/main.ts"), here("test/grpc_web.ts")], outdir: here("dist"), entryNames: "[name]",
  bundle: true, format: "esm", target: "es2022", minify: true, sourcemap: true, logLevel: "warning",
});
for (const file of ["index.html", "style.css"]) copyFileSync(here(file), here(`dist/${file}`));
