"""The server of the scene that has what is off by default: TLS, tokens, a policy, shares and an
audit log, on SQLite. And its callers, of whom some try what they may not."""

import contextlib
import math
import os
import pathlib
import random
import socket
import ssl
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path += [str(ROOT / folder) for folder in ("deploy/stack", "tests/dashboards", "benches")]

import grpc  # noqa: E402
import native  # noqa: E402
from load import user_pb2, user_service_pb2 as messages, user_service_pb2_grpc  # noqa: E402
from rig.identity import AUDIENCE, IDENTITY, ISSUER, POLICY  # noqa: E402

# In a second, by one caller, and at the same time.
CALL_RATE, CALLS_IN_FLIGHT = 40, 8
# The cache has no room for all users that are read.
CACHE_BYTES = 40_000
USERS = 400


class Guarded:
    """A process of the service, and its callers."""

    def __init__(self, stack: contextlib.ExitStack, binary: str, folder: pathlib.Path):
        self.folder = folder / "guarded"
        self.folder.mkdir()
        self.files = {name: self.folder / name for name in ("tls.crt", "tls.key", "policy.toml")}
        jwks = IDENTITY.issuer_key.with_name("jwks.json")
        self.rules(POLICY)
        # A third of its day is left.
        self.show(self.certificate("old", IDENTITY.ca, ago_hours=16))
        env = {
            "STORE_URL": f"sqlite:{self.folder}/users.db", "STORE_CACHE_BYTES": CACHE_BYTES,
            "TLS_CERT_FILE": self.files["tls.crt"], "TLS_KEY_FILE": self.files["tls.key"], "TLS_CLIENT_CA_FILE": IDENTITY.ca,
            "TLS_CLIENT_AUTH": "optional", "TLS_ISSUER_CA_FILE": IDENTITY.ca, "TLS_RELOAD_INTERVAL_MS": 1000,
            "AUTH_POLICY_FILE": self.files["policy.toml"], "AUTH_JWKS_FILE": jwks, "AUTH_ISSUER": ISSUER,
            "AUTH_AUDIENCE": AUDIENCE, "AUDIT_LOG": f"file:{self.folder}/audit.log",
            "MAX_CALL_RATE_PER_CALLER": CALL_RATE, "MAX_CALLS_PER_CALLER": CALLS_IN_FLIGHT,
        }
        env = {f"USERSVC_{name}": str(value) for name, value in env.items()}
        _, self.grpc, self.admin = native.service(stack, binary, self.folder, env)
        # OpenSSL is asked for each before the callers begin, because it takes a file.
        token = IDENTITY.token_of
        self.bad = ["", token("late", "users-reader", exp=1), token("lost", "users-reader", aud="another")]
        for caller, subject, role in [(self.shop, "shop", "users-writer"), (self.support, "support", "users-reader"),
                                      (self.eager, "eager", "users-writer")]:
            threading.Thread(target=caller, args=(token(subject, role),), daemon=True).start()
        self.foreign = self.certificate("foreign", None)
        threading.Thread(target=self.strangers, daemon=True).start()

    def certificate(self, name: str, ca: pathlib.Path | None, ago_hours: int = 0) -> tuple[pathlib.Path, pathlib.Path]:
        """A certificate for a day, and its key; it vouches for itself where there is no authority."""
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        issuer = ["-CA", ca, "-CAkey", ca.with_suffix(".key")] if ca else []
        subprocess.run(
            ["faketime", "-f", f"-{ago_hours}h", "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
             "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj", "/CN=guarded", *issuer, "-addext",
             "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-addext",
             "extendedKeyUsage=serverAuth,clientAuth", "-keyout", key, "-out", cert], check=True, capture_output=True)
        return cert, key

    def show(self, pair: tuple[pathlib.Path, pathlib.Path]) -> None:
        """What the port is to show new connections."""
        for source, place in zip(pair, (self.files["tls.crt"], self.files["tls.key"])):
            self.replace(place, source.read_text())

    def renew(self) -> None:
        self.show(self.certificate("renewed", IDENTITY.ca))

    def rules(self, policy: str) -> None:
        self.replace(self.files["policy.toml"], policy)

    @staticmethod
    def replace(place: pathlib.Path, text: str) -> None:
        new = place.with_suffix(".new")
        new.write_text(text)
        os.replace(new, place)

    @contextlib.contextmanager
    def users(self, token: str):
        """Calls by a new connection."""
        credentials = grpc.ssl_channel_credentials(IDENTITY.ca.read_bytes())
        # Channels of one process would otherwise share a connection.
        with grpc.secure_channel(self.grpc, credentials, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = user_service_pb2_grpc.UserServiceStub(channel)

            def call(method: str, request):
                metadata = [("authorization", f"Bearer {token}")] if token else []
                with contextlib.suppress(grpc.RpcError):
                    return getattr(stub, method)(request, timeout=5, metadata=metadata)

            yield call

    def shop(self, token: str) -> None:
        """Makes users and reads them."""
        ids = []
        with self.users(token) as call:
            while True:
                user = user_pb2.User(name="Ada", email=f"{random.randrange(10**12)}@example.com")
                if made := call("CreateUser", messages.CreateUserRequest(user=user)):
                    ids = [*ids, made.user.id][-USERS:]
                for id in random.choices(ids or ["nobody"], k=8):
                    call("GetUser", messages.GetUserRequest(id=id))
                time.sleep(0.6 + 0.3 * math.sin(time.monotonic() / 15))

    def support(self, token: str) -> None:
        """Lists users, each time over another connection, and may not make one."""
        while True:
            with self.users(token) as call:
                call("ListUsers", messages.ListUsersRequest())
                if random.random() < 0.3:
                    call("CreateUser", messages.CreateUserRequest(user=user_pb2.User(name="Bob", email="bob@example.com")))
            time.sleep(random.uniform(0.5, 1.5))

    def eager(self, token: str) -> None:
        """Takes more than its share now and then: calls in a second, and watches."""
        with self.users(token) as call:
            while True:
                time.sleep(random.uniform(15, 25))
                until = time.monotonic() + 5
                while time.monotonic() < until:
                    call("GetUser", messages.GetUserRequest(id="nobody"))
                    time.sleep(0.01)
                watches = [call("WatchUsers", messages.WatchUsersRequest()) for _ in range(CALLS_IN_FLIGHT + 4)]
                time.sleep(3)
                for watch in watches:
                    watch.cancel()

    def strangers(self) -> None:
        """Peers without TLS, without trust or without a good certificate, and callers without a good token."""
        while True:
            with contextlib.suppress(OSError):
                random.choice([self.plain, self.distrustful, self.untrusted, self.other_protocol])()
            with self.users(random.choice(self.bad)) as call:
                call("GetUser", messages.GetUserRequest(id="nobody"))
            time.sleep(random.uniform(0.5, 2))

    def connected(self) -> socket.socket:
        host, port = self.grpc.rsplit(":", 1)
        return socket.create_connection((host, int(port)), timeout=5)

    def plain(self) -> None:
        with self.connected() as peer:
            peer.sendall(b"GET / HTTP/1.1\r\nhost: users\r\n\r\n")
            peer.recv(1)

    def distrustful(self) -> None:
        self.shake(ssl.create_default_context())

    def untrusted(self) -> None:
        context = ssl.create_default_context(cafile=IDENTITY.ca)
        context.load_cert_chain(*self.foreign)
        self.shake(context)

    def other_protocol(self) -> None:
        context = ssl.create_default_context(cafile=IDENTITY.ca)
        context.set_alpn_protocols(["imap"])
        self.shake(context)

    def shake(self, context: ssl.SSLContext) -> None:
        with self.connected() as peer, context.wrap_socket(peer, server_hostname="localhost") as wrapped:
            wrapped.recv(1)
