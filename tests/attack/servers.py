"""What is attacked: the server, and a sink in its place."""

import base64
import json
import multiprocessing
import os
import re
import resource
import selectors
import socket
import ssl
import subprocess
import tempfile
import time
from pathlib import Path

import honest

# config.max_connections of the chart.
MAX_CONNECTIONS = 4_096
TICKS = os.sysconf("SC_CLK_TCK")
FORK = multiprocessing.get_context("fork")


def openssl(*arguments):
    return subprocess.run(["openssl", *arguments], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Server:
    """The binary on free ports, with a store in memory that holds a thousand users. It asks its peers for
    nothing, or for "tls" or a "token"."""

    def __init__(self, binary, descriptors=None, asks=None):
        # As the chart has it; how many a process with few descriptors may have, it finds out itself.
        limits = [] if descriptors else ["--max-connections", str(MAX_CONNECTIONS)]
        most = descriptors or resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        self.tls = self.token = None
        self.folder = tempfile.TemporaryDirectory()
        flags = {"tls": self.certificate, "token": self.keys, None: list}[asks]()
        self.process = subprocess.Popen(
            [binary, "--store-url", "memory:", "--call-log", "false", *limits, *flags], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
            env={**os.environ, "USERSVC_GRPC_ADDR": "127.0.0.1:0", "USERSVC_ADMIN_ADDR": "127.0.0.1:0", "USERSVC_LOG_FORMAT": "json"},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most)))
        for line in self.process.stderr:
            for name, host, port in re.findall(r'"(grpc|admin)_addr":"([^"]+):(\d+)"', line.decode()):
                setattr(self, name, (host, int(port)))
            if b'"serving"' in line:
                break
        # Whatever else it logs is thrown away.
        FORK.Process(target=lambda: [None for _ in self.process.stderr], daemon=True).start()
        honest.fill(self)

    def certificate(self):
        """Makes a certificate, and the context of a client that trusts it. Returns the server's flags."""
        key, certificate = self.folder.name + "/key.pem", self.folder.name + "/cert.pem"
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=test",
                "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate)
        self.tls = ssl.create_default_context(cafile=certificate)
        self.tls.check_hostname = False
        self.tls.set_alpn_protocols(["h2"])
        return ["--tls-cert-file", certificate, "--tls-key-file", key]

    def keys(self):
        """Makes the key of an issuer, and a token of its. Returns the server's flags."""
        folder = Path(self.folder.name)
        openssl("genrsa", "-out", folder / "key.pem", "2048")
        modulus = bytes.fromhex(openssl("rsa", "-in", folder / "key.pem", "-noout", "-modulus").decode().strip().split("=")[1])
        key = {"kty": "RSA", "alg": "RS256", "kid": "test", "use": "sig", "n": base64url(modulus), "e": "AQAB"}
        (folder / "jwks.json").write_text(json.dumps({"keys": [key]}))
        (folder / "policy.toml").write_text(
            '[roles.user]\nmethods = ["user.v1.UserService/*"]\n[[grants]]\nroles = ["user"]\nany_token = true\n')
        claims = {"iss": "https://issuer.test", "aud": "users", "sub": "honest", "exp": int(time.time()) + 3_600}
        signed = base64url(json.dumps({"alg": "RS256", "kid": "test"}).encode()) + "." + base64url(json.dumps(claims).encode())
        (folder / "signed").write_text(signed)
        self.token = signed + "." + base64url(openssl("dgst", "-sha256", "-sign", folder / "key.pem", folder / "signed"))
        return ["--auth-policy-file", folder / "policy.toml", "--auth-jwks-file", folder / "jwks.json",
                "--auth-issuer", claims["iss"], "--auth-audience", claims["aud"]]

    def resident(self, key="VmRSS"):
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{key}:\s+(\d+)", text)[1]) << 10

    def forget_peak(self):
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def cpu(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def stop(self):
        self.process.terminate()
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return None


class Sink:
    """Takes every connection, and reads what it is sent."""

    def __init__(self):
        listener = socket.create_server(("127.0.0.1", 0), backlog=4_096)
        self.grpc = self.admin = listener.getsockname()
        self.process = FORK.Process(target=self.read, args=(listener,), daemon=True)
        self.process.start()
        listener.close()

    @staticmethod
    def read(listener):
        selector = selectors.DefaultSelector()
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                try:
                    if key.fileobj is listener:
                        selector.register(listener.accept()[0], selectors.EVENT_READ)
                    elif not key.fileobj.recv(1 << 18):
                        raise ConnectionError
                except OSError:
                    if key.fileobj is not listener:
                        selector.unregister(key.fileobj)
                        key.fileobj.close()

    def stop(self):
        self.process.kill()
