"""The servers that are measured: how each is started, checked and stopped."""

import json
import os
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field

from rig import machine
from rig.identity import AUDIENCE, IDENTITY, ISSUER
from rig.machine import BIN, OUT, OURS, PYTHON, SERVER_CORE

# Everything on. Nothing listens on port 9: what spans cost the calls, and no
# collector's work.
TRACES = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
    "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
    "OTEL_TRACES_SAMPLER_ARG": "0.01",
}


GRPC, CONNECT, CONNECT_JSON = "gRPC", "Connect", "Connect, JSON"
CONTENT_TYPES = {GRPC: "application/grpc", CONNECT: "application/proto", CONNECT_JSON: "application/json"}


@dataclass
class Server:
    name: str
    # {port}, {admin}, {store} and the files of an identity are filled in. One process, no launcher that forks.
    command: list
    # "v1", "article", or "constant": always the same user, nothing stored.
    contract: str = "article"
    env: dict = field(default_factory=dict)
    tls: bool = False
    # What clients show: a certificate, a token.
    certificate: bool = False
    token: bool = False

    def shown(self):
        """What our own clients are told of it, as flags."""
        flags = ["--tls-ca", IDENTITY.ca] if self.tls else []
        if self.certificate:
            flags += ["--tls-cert", IDENTITY.cert("client"), "--tls-key", IDENTITY.key("client")]
        return flags + (["--token-file", IDENTITY.token_file] if self.token else [])

    def get(self, protocol):
        """Path and body of a GetUser for u-1."""
        user_id = b"\x03u-1"
        path, message, json = "/UserService/GetUser", b"\x0a\x05\x22" + user_id, b'{"user":{"id":"u-1"}}'
        if self.contract == "v1":
            path, message, json = "/user.v1.UserService/GetUser", b"\x0a" + user_id, b'{"id":"u-1"}'
        return path, {GRPC: framed(message), CONNECT: message, CONNECT_JSON: json}[protocol]


OURS_COMMAND = [OURS, "--grpc-addr", "127.0.0.1:{port}", "--admin-addr", "127.0.0.1:{admin}",
                "--store-url", "sqlite:{store}"]

TLS = ["--tls-cert-file", "{cert}", "--tls-key-file", "{key}"]
POLICY = ["--auth-policy-file", "{policy}", "--auth-jwks-file", "{jwks}", "--auth-issuer", ISSUER,
          "--auth-audience", AUDIENCE]

OURS_ALL, QUIET, HYPER, TONIC, GO, FLOOR = "ours", "ours-quiet", "raw-hyper", "tonic", "grpc-go", "nghttpd"
CONNECT_RUST, CONNECT_GO = "connectrpc", "connect-go"

SERVERS = {server.name: server for server in [
    Server(OURS_ALL, OURS_COMMAND, "v1", TRACES),
    Server("ours-token", [*OURS_COMMAND, *POLICY], "v1", TRACES, token=True),
    Server("ours-tls", [*OURS_COMMAND, *TLS], "v1", TRACES, tls=True),
    Server("ours-mtls", [*OURS_COMMAND, *TLS, "--tls-client-ca-file", "{ca}"], "v1", TRACES, tls=True, certificate=True),
    Server("ours-tls-token", [*OURS_COMMAND, *TLS, *POLICY], "v1", TRACES, tls=True, token=True),
    Server(QUIET, [*OURS_COMMAND, "--call-log", "false", "--metric-names", "none"], "v1"),
    Server(FLOOR, ["nghttpd", "--no-tls", "--address=127.0.0.1", f"--htdocs={OUT / 'htdocs'}", "--no-content-length",
                   "--trailer=grpc-status: 0", "{port}"], "constant"),
    Server(HYPER, [BIN / "raw-hyper", "{port}"], "constant"),
    Server(TONIC, [BIN / "tonic-bare", "{port}"]),
    Server(CONNECT_RUST, [BIN / "connectrpc-plain", "{port}"]),
    Server("tonic-usual", [BIN / "tonic-usual", "{port}"]),
    Server(GO, [BIN / "go-plain", "{port}"]),
    Server(CONNECT_GO, [BIN / "go-connect", "{port}"]),
    Server("grpc-go-tls", [BIN / "go-plain", "{port}", "{cert}", "{key}"], tls=True),
    Server("grpc-go-middleware", [BIN / "go-middleware", "{port}", "{admin}"]),
    Server("python", [PYTHON, machine.ROOT / "benches/peers/python/server.py", "{port}"],
           env={"PYTHONPATH": str(OUT / "stubs")}),
]}

# {store} is a port here.
ON_POSTGRES = Server("ours-on-postgres", [*OURS_COMMAND[:-1], "postgres://bench@127.0.0.1:{store}/postgres?sslmode=disable"],
                     "v1", TRACES)


def framed(message):
    return b"\0" + len(message).to_bytes(4, "big") + message


@dataclass
class Running:
    server: Server
    process: subprocess.Popen
    port: int
    data_bytes: int = 0
    # What calls of one user are made by.
    protocol: str = GRPC

    @property
    def pid(self):
        return self.process.pid

    def check(self):
        """Asks with a foreign client, and learns how many bytes of DATA a GetUser brings."""
        command = [PYTHON, machine.ROOT / "benches/rig/check.py", self.port, self.server.contract, *self.server.shown()]
        env = {**os.environ, "PYTHONPATH": str(OUT / "stubs")}
        self.data_bytes = int(machine.on_client_core(command, env=env))
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.server.name} has ended: {self.process.returncode}")

    def speak(self, protocol):
        """Takes another protocol from now on, over HTTP/2 as well, and learns the same of it."""
        path, body = self.server.get(protocol)
        self.protocol = protocol
        if protocol == GRPC:
            return self.check()
        command = ["curl", "--silent", "--fail", "--http2-prior-knowledge", "--data-binary", "@-",
                   "--header", f"content-type: {CONTENT_TYPES[protocol]}", f"http://127.0.0.1:{self.port}{path}"]
        answer = subprocess.run(command, input=body, stdout=subprocess.PIPE, check=True).stdout
        if b"Ada Lovelace" not in answer or (json.loads(answer)["user"]["id"] != "u-1" if protocol == CONNECT_JSON else b"u-1" not in answer):
            raise RuntimeError(f"{self.server.name} answers {answer} by {protocol}")
        self.data_bytes = len(answer)
        return None


@contextmanager
def running(server, store=None, core=SERVER_CORE, wrapper=()):
    """A fresh process of a server, known to answer rightly."""
    port = machine.port()
    values = {"port": port, "admin": port + 1000, "store": store}
    if server.tls:
        values |= {"ca": IDENTITY.ca, "cert": IDENTITY.cert("server"), "key": IDENTITY.key("server")}
    if server.token:
        values |= {name: IDENTITY.token_file.with_name(file) for name, file in (("policy", "policy.toml"), ("jwks", "jwks.json"))}
    command = [*wrapper, *(str(part).format(**values) for part in server.command)]
    if core is not None:
        command = machine.pinned(core, command)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "USERSVC_"))}
    process = subprocess.Popen(command, env={**inherited, **server.env}, stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        server_running = Running(server, process, port)
        server_running.check()
        yield server_running
    finally:
        stop(process)


def stop(process):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
