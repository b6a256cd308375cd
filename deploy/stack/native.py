"""The stack with servers that are installed on this machine: PostgreSQL, the
collector, Prometheus and the service, on free ports, in a folder that goes with
them. Run it to look around (`make stack-native`); tests/dashboards/live.py has
it too. Usage: native.py USER-SERVICE"""

import contextlib
import http.server
import json
import os
import pathlib
import pwd
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

STACK = pathlib.Path(__file__).resolve().parent
ROOT = STACK.parents[1]
PATIENCE = 120
# The ports of servers that have to be told one. The kernel gives none of these to a socket that
# asks for any port.
PORTS = 20_000, 30_000


def until(what: str, ready):
    """Waits for a thing to be so, and returns what it says."""
    end = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError):
            if said := ready():
                return said
        if time.monotonic() > end:
            sys.exit(f"not within {PATIENCE} s: {what}")
        time.sleep(0.1)


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def free_port() -> int:
    """A port where nobody listens. It stays free until its server listens."""
    while True:
        port = random.randrange(*PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def run(stack: contextlib.ExitStack, command: list[str], env: dict[str, str] | None = None, log=None, **more):
    process = subprocess.Popen(command, env={**os.environ, **(env or {})}, stderr=log, **more)
    stack.callback(process.wait, timeout=60)
    stack.callback(process.terminate)
    return process


def postgres(stack: contextlib.ExitStack, folder: pathlib.Path) -> tuple[str, subprocess.Popen]:
    """Starts a database, and returns its URL and its first process."""
    newest = max(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    data, port = folder / "postgres", free_port()
    data.mkdir()
    # PostgreSQL refuses to run as root.
    user = {"user": "nobody"} if os.geteuid() == 0 else {}
    if user:
        folder.chmod(0o755)
        shutil.chown(data, "nobody", pwd.getpwnam("nobody").pw_gid)
    subprocess.run([newest / "initdb", f"--pgdata={data}", "--username=users", "--auth=trust", "--no-sync",
                    "--encoding=UTF8", "--locale=C"], check=True, stdout=subprocess.DEVNULL, cwd="/", **user)
    server = run(stack, [str(newest / "postgres"), "-D", str(data), "-p", str(port), "-c", "fsync=off", "-c",
                         "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="],
                 log=(folder / "postgres.log").open("w"), cwd="/", **user)
    ready = [newest / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
    until("PostgreSQL is ready", lambda: subprocess.run(ready).returncode == 0)
    return f"postgres://users@127.0.0.1:{port}/postgres?sslmode=disable", server


class Sink(http.server.BaseHTTPRequestHandler):
    """In the place of the trace store: takes what the collector sends, and counts it."""
    exports = 0

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        Sink.exports += 1
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


def collector(stack: contextlib.ExitStack) -> tuple[str, subprocess.Popen]:
    """Starts the collector, and returns where it takes spans."""
    sink = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    listen = f"127.0.0.1:{free_port()}"
    env = {"OTLP_LISTEN": listen, "TRACE_STORE": f"http://127.0.0.1:{sink.server_port}"}
    process = run(stack, [str(ROOT / "bin" / "otelcol"), "--config", str(STACK / "otelcol.yaml")], env)
    host, port = listen.split(":")
    until("the collector listens", lambda: socket.create_connection((host, int(port))))
    return f"http://{listen}", process


def prometheus(stack: contextlib.ExitStack, folder: pathlib.Path, target: str, change=lambda text: text) -> str:
    """Starts Prometheus on the configuration of this folder, and returns its URL.
    A test may `change` how long things last."""
    for path in [STACK / "prometheus.yml", *(STACK.parent / "prometheus").glob("*.yaml")]:
        copy = folder / path.relative_to(STACK.parent)
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(change(path.read_text()))
    targets = folder / "stack" / "targets"
    targets.mkdir()
    (targets / "targets.yaml").write_text(json.dumps([{"targets": [target]}]))
    url = f"http://127.0.0.1:{free_port()}"
    run(stack, ["prometheus", f"--config.file={folder}/stack/prometheus.yml", f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address={url.removeprefix('http://')}", "--log.level=error"])
    until("Prometheus is ready", lambda: fetch(f"{url}/-/ready"))
    return url


def service(stack: contextlib.ExitStack, binary: str, folder: pathlib.Path, env: dict[str, str]):
    """Starts the service, and returns its process and where it serves gRPC and metrics."""
    log = folder / "log"
    env = {"USERSVC_GRPC_ADDR": "127.0.0.1:0", "USERSVC_ADMIN_ADDR": "127.0.0.1:0", "USERSVC_LOG_FORMAT": "json", **env}
    process = run(stack, [binary], env, stack.enter_context(log.open("w")))
    until("the service serves", lambda: '"serving"' in log.read_text())
    listening = next(line for line in map(json.loads, log.read_text().splitlines()) if line["message"] == "listening")
    return process, listening["grpc_addr"], listening["admin_addr"]


def main() -> None:
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url, _ = postgres(stack, folder)
        endpoint, _ = collector(stack)
        env = {"USERSVC_STORE_URL": url, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
        _, grpc, admin = service(stack, sys.argv[1], folder, env)
        watched = prometheus(stack, folder, admin)
        print(f"gRPC on {grpc}, admin on {admin}, Prometheus on {watched}; a call each second until Ctrl-C", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                subprocess.run([sys.argv[1], "smoke", grpc], stdout=subprocess.DEVNULL)
                time.sleep(1)


if __name__ == "__main__":
    main()
