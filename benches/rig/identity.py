"""Certificates, a key set, a policy and a token, made for one run."""

import base64
import json
import subprocess
import time
from functools import cached_property

from rig import machine

ISSUER, AUDIENCE = "https://issuer.bench.invalid", "user-service"
# A role among others, and the caller by a claim, as an issuer of a company has them.
POLICY = """
[roles.reader]
methods = ["user.v1.UserService/GetUser", "user.v1.UserService/ListUsers"]

[roles.writer]
methods = ["user.v1.UserService/*"]

[[grants]]
claims = { "realm_access.roles" = ["users-reader"] }
roles = ["reader"]

[[grants]]
claims = { "realm_access.roles" = ["users-writer"] }
roles = ["writer"]
"""


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def openssl(*command, **options):
    return subprocess.run(["openssl", *map(str, command)], check=True, capture_output=True, **options).stdout


class Identity:
    """Files in a folder of their own; each is made when it is first asked for."""

    @cached_property
    def folder(self):
        return machine.scratch()

    @cached_property
    def ca(self):
        """The authority of servers and of clients; `server` and `client` are next to it."""
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 2]
        ca = self.folder / "ca.pem"
        openssl("req", "-x509", *key, "-subj", "/CN=authority", "-keyout", self.folder / "ca.key", "-out", ca)
        for name, san in (("server", "IP:127.0.0.1,DNS:localhost"), ("client", "URI:spiffe://bench.invalid/load")):
            openssl("req", "-x509", *key, "-subj", f"/CN={name}", "-CA", ca, "-CAkey", self.folder / "ca.key",
                    "-addext", "basicConstraints=critical,CA:FALSE", "-addext", f"subjectAltName={san}",
                    "-addext", "extendedKeyUsage=serverAuth,clientAuth",
                    "-keyout", self.folder / f"{name}.key", "-out", self.folder / f"{name}.pem")
        return ca

    def cert(self, name):
        return self.ca.with_name(f"{name}.pem")

    def key(self, name):
        return self.ca.with_name(f"{name}.key")

    @cached_property
    def issuer_key(self):
        """An Ed25519 key of the issuer; `jwks.json` and `policy.toml` are next to it."""
        key = self.folder / "issuer.key"
        openssl("genpkey", "-algorithm", "ed25519", "-out", key)
        public = openssl("pkey", "-in", key, "-pubout", "-outform", "DER")[-32:]
        jwk = {"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": "bench", "x": base64url(public)}
        (self.folder / "jwks.json").write_text(json.dumps({"keys": [jwk]}))
        (self.folder / "policy.toml").write_text(POLICY)
        return key

    def token_of(self, subject, role, **other):
        """A token for a day. `other` claims come in place of these."""
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "exp": int(time.time()) + 24 * 3600,
                  "realm_access": {"roles": ["offline_access", role]}} | other
        parts = [base64url(json.dumps(part).encode()) for part in ({"alg": "EdDSA", "kid": "bench"}, claims)]
        unsigned = self.folder / "unsigned"
        unsigned.write_text(".".join(parts))
        signature = openssl("pkeyutl", "-sign", "-rawin", "-inkey", self.issuer_key, "-in", unsigned)
        return ".".join([*parts, base64url(signature)])

    @cached_property
    def token_file(self):
        """The token of the load; the files of its issuer are next to it."""
        path = self.folder / "token"
        path.write_text(self.token_of("load", "users-writer"))
        return path

    @property
    def token(self):
        return self.token_file.read_text()


IDENTITY = Identity()
