"""Calls as a page makes them, by Connect and gRPC-Web over HTTP/1.1 and HTTP/2, through each
proxy: with its configuration and TLS, with no replica left, and where the proxy speaks
HTTP/1.1 to the replicas."""

import contextlib
import json
import pathlib
import subprocess
import urllib.parse

import grpc
import lines
from place import GRPC_PORT, LISTEN, PATIENCE, PROXIES, Place

# Another origin, which the replicas let call.
ORIGIN = "https://pages.example.org"
HTTP = {"1.1": "--http1.1", "2": "--http2"}
# Each proxy where it speaks HTTP/1.1 to the replicas.
PLAIN = {
    "nginx": ("grpc_pass grpc://user_service;",
              "proxy_pass http://user_service; proxy_http_version 1.1; proxy_buffering off; proxy_read_timeout 10m;"),
    "haproxy": ("default-server proto h2", "default-server"),
    "caddy": ("h2c://", "http://"),
}


def secured(place: Place, proxy: str, *changes: tuple[str, str]) -> tuple[str, pathlib.Path]:
    """Starts a proxy that listens by TLS, and returns its address and its certificate."""
    key, certificate, both = (place.folder / f"{name}.pem" for name in ("key", "certificate", "both"))
    if not both.exists():
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                        "-subj", "/CN=proxy", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
                       check=True, stderr=subprocess.DEVNULL)
        both.write_text(certificate.read_text() + key.read_text())
        both.chmod(0o644)
    listen = {
        "nginx": (" http2;", f" ssl http2; ssl_certificate {certificate}; ssl_certificate_key {key};"),
        "haproxy": (f"bind {LISTEN}", f"bind {LISTEN} ssl crt {both} alpn h2,http/1.1"),
        "caddy": (f"http://{LISTEN} {{", f"https://{LISTEN} {{\n\ttls {certificate} {key}"),
    }
    return place.proxy(proxy, listen[proxy], *changes), certificate


class Page:
    """Calls through a proxy by one version of HTTP."""

    def __init__(self, address: str, certificate: pathlib.Path, version: str):
        self.url, self.version = f"https://{address}/user.v1.UserService", version
        self.command = ["curl", "--silent", "--show-error", "--no-buffer", "--cacert", str(certificate), HTTP[version],
                        "--max-time", str(PATIENCE)]

    def ask(self, method: str, *arguments: str, body: bytes | None = None) -> tuple[int, str, bytes]:
        """The status, the content type and the body of an answer."""
        sent = ["--data-binary", "@-"] if body is not None else []
        says = "%{stderr}%{http_code} %{http_version} %{content_type}"
        ran = subprocess.run([*self.command, "--write-out", says, *arguments, *sent, f"{self.url}/{method}"], input=body,
                             check=False, capture_output=True)
        assert ran.returncode == 0, f"{method}: {ran.stderr.decode()}"
        status, version, kind = f"{ran.stderr.decode()} ".split(" ", 2)
        assert version == self.version, f"HTTP/{version}, not {self.version}"
        return int(status), kind.strip(), ran.stdout

    def unary(self, method: str, message: dict, *arguments: str) -> tuple[int, dict]:
        """The status and the message of a unary call by Connect."""
        status, kind, body = self.ask(method, "--header", "content-type: application/json", *arguments, body=json.dumps(message).encode())
        assert kind == "application/json", f"{method}: {status}, {kind}"
        return status, json.loads(body)

    def create(self, name: str, *arguments: str) -> tuple[int, dict]:
        return self.unary("CreateUser", {"user": {"name": name, "email": f"{name}@example.com"}}, *arguments)

    def watched(self, name: str) -> bytes:
        """The message of a watch that tells of a user, who is created once the watch has begun."""
        command = [*self.command, "--header", "content-type: application/connect+json", "--data-binary", "@-", f"{self.url}/WatchUsers"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as curl:
            curl.stdin.write(enveloped(b"{}"))
            curl.stdin.close()
            try:
                assert envelope(curl.stdout), "a watch that ends before its first message"
                status, user = self.create(name)
                assert status == 200, user
                while name.encode() not in (message := envelope(curl.stdout)):
                    assert message, "a watch that ends before it tells of a user"
                return message
            finally:
                curl.kill()


def enveloped(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


def envelope(stream) -> bytes:
    """The next message of a stream; none at its end."""
    head = stream.read(5)
    return stream.read(int.from_bytes(head[1:], "big")) if len(head) == 5 else b""


def list_by_grpc(address: str, certificate: pathlib.Path) -> str:
    trusted = grpc.ssl_channel_credentials(certificate.read_bytes())
    with grpc.secure_channel(address, trusted) as channel:
        return lines.list_one(lines.user_service_pb2_grpc.UserServiceStub(channel))


def calls_of_a_page(place: Place, page: Page, name: str) -> None:
    status, created = page.create(name)
    assert status == 200 and created["user"]["name"] == name, created
    status, error = page.create(name)
    assert status == 409 and error["code"] == "already_exists" and error["details"], error
    query = urllib.parse.urlencode({"connect": "v1", "encoding": "json", "message": json.dumps({"email": f"{name}@example.com"})})
    status, _, body = page.ask(f"GetUser?{query}")
    assert status == 200 and json.loads(body) == created, body
    assert name.encode() in page.watched(f"{name}-watched")

    status, kind, body = page.ask("ListUsers", "--header", "content-type: application/grpc-web+proto", body=enveloped(b""))
    assert (status, kind) == (200, "application/grpc-web+proto"), f"{status}, {kind}"
    assert name.encode() in body and body.endswith(b"grpc-status: 0\r\n"), body

    preflight = ["--request", "OPTIONS", "--header", f"origin: {ORIGIN}", "--header", "access-control-request-method: POST",
                 "--header", "access-control-request-headers: content-type", "--dump-header", "-"]
    status, _, head = page.ask("CreateUser", *preflight)
    assert status == 204 and f"access-control-allow-origin: {ORIGIN}" in head.decode().lower(), head

    # A status of HTTP that proxies answer with, too.
    with place.locked():
        status, error = page.create(f"{name}-late", "--header", "connect-timeout-ms: 500")
    assert (status, error.get("code")) == (504, "deadline_exceeded"), f"{status}, {error}"


def a_page_calls_through_each_proxy_by_tls(place: Place) -> None:
    for proxy in PROXIES:
        address, certificate = secured(place, proxy)
        for version in HTTP:
            calls_of_a_page(place, Page(address, certificate, version), f"page-{proxy}-{version[0]}")
        ended = list_by_grpc(address, certificate)
        assert ended == "OK", f"{proxy}, gRPC by TLS: {ended}"


def a_page_calls_through_proxies_that_speak_http_1_1_to_replicas(place: Place) -> None:
    for proxy, change in PLAIN.items():
        address, certificate = secured(place, proxy, change)
        for version in HTTP:
            calls_of_a_page(place, Page(address, certificate, version), f"plain-{proxy}-{version[0]}")
        ended = list_by_grpc(address, certificate)
        assert ended == "UNKNOWN: Received http2 header with status: 505", f"{proxy}: {ended}"


def with_no_replica_left_pages_are_told_so_by_503(place: Place) -> None:
    for proxy in PROXIES:
        address, certificate = secured(place, proxy, (GRPC_PORT, str(place.unused_port)))
        page = Page(address, certificate, "2")
        # An answer that is ahead of a request's body is lost now and then. Caddy tries for 5 s.
        asked = 1 if proxy == "caddy" else 10
        for kind in asked * ["application/json", "application/grpc-web+proto"]:
            status, _, _ = page.ask("ListUsers", "--header", f"content-type: {kind}", body=b"{}")
            assert status == 503, f"{proxy}, {kind}: {status}"


TESTS = [
    a_page_calls_through_each_proxy_by_tls,
    a_page_calls_through_proxies_that_speak_http_1_1_to_replicas,
    with_no_replica_left_pages_are_told_so_by_503,
]
