// Serves dist/ on the loopback address. Usage: node serve.mjs [PORT]
import { createReadStream } from "node:fs";
import { createServer } from "node:http";
import { basename, extname } from "node:path";
import { fileURLToPath } from "node:url";

const TYPES = { ".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".map": "application/json" };

export function serve(port) {
  const server = createServer((request, response) => {
    // All files are in one folder.
    const name = basename(new URL(request.url, "http://localhost").pathname) || "index.html";
    const file = createReadStream(`${import.meta.dirname}/dist/${name}`);
    file.on("error", () => response.writeHead(404).end());
    file.on("open", () => {
      response.setHeader("content-type", `${TYPES[extname(name)] ?? "text/plain"}; charset=utf-8`);
      file.pipe(response);
    });
  });
  return new Promise((listening) => server.listen(port, "127.0.0.1", () => listening(server)));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const server = await serve(Number(process.argv[2] ?? 8080));
  console.log(`http://127.0.0.1:${server.address().port}`);
}
