"""Two replicas on one database, the proxies in front of both, and clients that call
through each of them."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "deploy" / "stack"), str(ROOT / "tools")]

import native  # noqa: E402
from native import until  # noqa: E402

CONFIGS = ROOT / "deploy" / "proxies"
CLIENTS = ROOT / "tests" / "api" / "clients"
STUBS = ROOT / "target" / "clients"
# The addresses that the configurations have for what a user replaces.
HOSTS = {"10.0.0.1": "127.0.0.1", "10.0.0.2": "127.0.0.2"}
LISTEN, GRPC_PORT, ADMIN_PORT = "127.0.0.1:8080", "50051", "9464"
# How long a call may take, in seconds: machines may be slow.
PATIENCE = 60
# How long a client may take to report, in seconds. The last report waits for a whole import.
REPORT_SECONDS = 600
# Long enough for an active health check, one a second, to fail twice.
SHUTDOWN_DELAY_MS = 3000


def common_port() -> int:
    """A port that is free on the hosts of both replicas."""
    while True:
        port = native.free_port()
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for host in HOSTS.values():
                stack.enter_context(socket.create_server((host, port)))
            return port


class Replica:
    """One replica, at an address that it keeps when it is started anew."""

    def __init__(self, place: "Place", host: str):
        self.place, self.host, self.process = place, host, None
        self.address, self.log = f"{host}:{place.grpc_port}", place.folder / f"{host}.log"

    def start(self, **settings) -> None:
        env = {"USERSVC_STORE_URL": self.place.store, "USERSVC_LOG_FORMAT": "json", "USERSVC_CALL_LOG": "false",
               "USERSVC_GRPC_ADDR": self.address, "USERSVC_ADMIN_ADDR": f"{self.host}:{self.place.admin_port}",
               "USERSVC_SHUTDOWN_DELAY_MS": str(SHUTDOWN_DELAY_MS), "USERSVC_STORE_TIMEOUT_MS": str(PATIENCE * 1000),
               "USERSVC_DRAIN_TIMEOUT_MS": str(PATIENCE * 1000), "USERSVC_STORE_PROBE_FAILURES": str(PATIENCE)}
        env |= {f"USERSVC_{name.upper()}": str(value) for name, value in settings.items()}
        with self.log.open("w") as log:
            self.process = subprocess.Popen([self.place.binary], env={**os.environ, **env}, stderr=log)
        until(f"{self.address} serves", lambda: '"serving"' in self.log.read_text())

    def stop(self) -> int:
        """Ends the replica as an orchestrator does, and returns its exit code."""
        self.process.terminate()
        return self.process.wait(timeout=2 * PATIENCE)

    def holds(self, method: str) -> bool:
        """Whether a call of this method is in flight here."""
        return self.running() and method in native.fetch(f"http://{self.host}:{self.place.admin_port}/calls")

    def calls_cut(self) -> int:
        """How many calls the replica has ended with their connection."""
        metrics = native.fetch(f"http://{self.host}:{self.place.admin_port}/metrics")
        return int(re.search(r"^grpc_server_calls_cut_total (\d+)", metrics, re.M)[1])

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=60)


class Place:
    def __init__(self, stack: contextlib.ExitStack, binary: str):
        self.stack, self.binary = stack, binary
        self.folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.grpc_port, self.admin_port, self.unused_port = (common_port() for _ in range(3))
        self.store, _ = native.postgres(stack, self.folder)
        self.logs: dict[str, pathlib.Path] = {}
        self.replicas = [Replica(self, host) for host in HOSTS.values()]
        stack.callback(self.end)

    def end(self) -> None:
        for replica in self.replicas:
            if replica.running():
                replica.kill()

    def used(self, replica: Replica) -> bool:
        """Whether no proxy's last check of the replica has failed, by what the proxies log."""
        server = ["first", "second"][self.replicas.index(replica)]
        says = {"haproxy": rf"Server user_service/{server} is (\w+)",
                "caddy": rf'"msg":"(host is up|status code out of tolerances|HTTP request failed)".*"host":"{replica.host}:'}
        checks = {name: re.findall(pattern, self.logs[name].read_text()) for name, pattern in says.items()}
        return all(not found or found[-1] in ("UP", "host is up") for found in checks.values())

    def service_config(self) -> pathlib.Path:
        """The one that docs/PROXIES.md recommends behind a proxy, with time for slow machines."""
        config = json.loads((ROOT / "deploy" / "client" / "service-config.json").read_text())
        del config["healthCheckConfig"]
        config["methodConfig"][0]["timeout"] = f"{PATIENCE}s"
        path = self.folder / "service-config.json"
        path.write_text(json.dumps(config))
        return path

    @contextlib.contextmanager
    def locked(self):
        """No write is made meanwhile."""
        psql = subprocess.Popen(["psql", "--quiet", self.store], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        psql.stdin.write("BEGIN; LOCK TABLE user_service.users; \\echo locked\n")
        psql.stdin.flush()
        assert psql.stdout.readline() == "locked\n"
        try:
            yield
        finally:
            psql.communicate("COMMIT;\n")

    def proxy(self, name: str, *changes: tuple[str, str]) -> str:
        """Starts a proxy on its configuration with the changes of a test, and returns its address."""
        file, command = PROXIES[name]
        folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))
        folder.chmod(0o755)
        address = f"127.0.0.1:{native.free_port()}"
        text = (CONFIGS / file).read_text()
        user_replaces = {LISTEN: address, **HOSTS, GRPC_PORT: str(self.grpc_port), ADMIN_PORT: str(self.admin_port)}
        # nginx alone has no checks of its own, so it knows no admin port.
        absent = [part for part in user_replaces if part not in text and (name, part) != ("nginx", ADMIN_PORT)]
        assert not absent, f"{absent} are not in {file}"
        for before, after in changes:
            assert before in text, f"{before!r} is not in {file}"
            text = text.replace(before, after)
        text = re.sub("|".join(map(re.escape, user_replaces)), lambda found: user_replaces[found[0]], text)
        if name == "nginx":
            paths = "".join(f"{of}_temp_path {folder}/{of}; " for of in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
            text = text.replace("access_log /dev/stdout;", f"access_log off; {paths}")
        (folder / file).write_text(text)
        self.logs[name] = folder / "log"
        log = self.logs[name].open("w")
        env = {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        process = native.run(self.stack, command(folder, file), env, log, stdout=log)
        host, port = address.split(":")

        def listens() -> bool:
            if process.poll() is not None:
                sys.exit(f"{name} ended with {process.returncode}: {(folder / 'log').read_text()[-2000:]}")
            socket.create_connection((host, int(port))).close()
            return True

        until(f"{name} listens", listens)
        return address


def system(name: str) -> str:
    """A program of Debian's that is not on every user's path."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") or sys.exit(f"please install {name}")


def nginx(folder: pathlib.Path, file: str) -> list[str]:
    return [system("nginx"), "-p", str(folder), "-c", str(folder / file), "-e", "stderr",
            "-g", f"daemon off; pid {folder}/pid;"]


def haproxy(folder: pathlib.Path, file: str) -> list[str]:
    return [system("haproxy"), "-db", "-f", str(folder / file)]


def caddy(folder: pathlib.Path, file: str) -> list[str]:
    return [str(ROOT / "bin" / "caddy"), "run", "--adapter", "caddyfile", "--config", str(folder / file)]


PROXIES = {
    "nginx": ("nginx.conf", nginx),
    "haproxy": ("haproxy.cfg", haproxy),
    "caddy": ("Caddyfile", caddy),
}


# What clients let a server send before they have read it, in bytes. With what most of
# them take, imports through HAProxy stop for good (docs/PROXIES.md).
WINDOW = 4 * 1024 * 1024


class Client:
    """A program that calls through proxies until it is told to end."""

    def __init__(self, place: Place, name: str, config: pathlib.Path, users: int, targets: dict[str, str], window=WINDOW):
        self.name, self.log = name, place.folder / f"client-{name}.log"
        command, env = CLIENT_COMMANDS[name]
        command = [str(word) for word in command] + [str(config), str(users), str(window)]
        command += [str(ROOT / "proto")] if name == "grpc-js" else []
        command += [f"{target}={address}" for target, address in targets.items()]
        self.process = subprocess.Popen(command, env={**os.environ, **env}, text=True, cwd=ROOT, bufsize=1,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log.open("w"))
        place.stack.callback(self.end)

    def report(self) -> list[dict]:
        """What it has seen since the last report, of each target and kind of calls."""
        # A program that has ended is told of by what it said last.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write("report\n")
        return self.read()

    def finish(self) -> None:
        """Has it make no more calls, and wait for its watches to tell what was created."""
        self.process.stdin.close()

    def last_report(self) -> list[dict]:
        return self.read()

    def read(self) -> list[dict]:
        # What a program waits for may never come.
        limit = threading.Timer(REPORT_SECONDS, self.process.kill)
        limit.start()
        line = self.process.stdout.readline()
        limit.cancel()
        if not line:
            sys.exit(f"{self.name} ended with {self.process.wait()}: {self.log.read_text()[-2000:]}")
        return [{"client": self.name, **seen} for seen in json.loads(line)]

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


PYTHON_PATH = {"PYTHONPATH": str(STUBS / "python" / "ours"), "PYTHONDONTWRITEBYTECODE": "1"}
JAVA_PATH = f"{STUBS}/java/classes:{STUBS}/java/lib/*"
CLIENT_COMMANDS = {
    "grpc-go": ([ROOT / "bin" / "go-mixed"], {}),
    "grpcio": ([ROOT / ".venv" / "bin" / "python", CLIENTS / "python" / "mixed.py"], PYTHON_PATH),
    "grpc-js": (["node", CLIENTS / "node" / "mixed.js"], {}),
    "grpc-java": (["java", "-XX:+UseSerialGC", "-cp", JAVA_PATH, "Mixed"], {}),
}
