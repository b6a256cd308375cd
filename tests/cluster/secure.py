"""TLS, certificates of clients, tokens and a policy, as ci/secure-values.yaml has them: who
gets in, and certificates and rules that change under calls."""

import pathlib
import subprocess
import tempfile

import yaml

from installs import accepted, comes_and_goes
from kube import CI, PATIENCE, ROOT, Place, Traffic, refused, run, until

VALUES = CI / "secure-values.yaml"
# A Certificate of cert-manager in place of the Secret: nobody here makes it, and the API
# server has to take it.
CERTIFICATE = ("tls.certificate.enabled=true", "tls.certificate.issuerRef.name=internal", "tls.certificate.duration=24h",
               "tls.certificate.dnsNames={users.example.com}", "tls.clients.testSecret=")
# The client that the policy lets read.
CHECKOUT = "URI:spiffe://example.org/ns/shop/sa/checkout"


class Authority:
    """Makes certificates in a folder."""

    def __init__(self, folder: pathlib.Path, name: str):
        self.folder, self.file = folder, folder / f"{name}.pem"
        openssl_key(folder, name, f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign")
        self.pem = self.file.read_text()

    def issue(self, name: str, *names: str) -> "Pair":
        openssl_key(self.folder, name, "/CN=unused", "-CA", self.file, "-CAkey", self.file.with_suffix(".key"),
                    "-addext", "basicConstraints=critical,CA:FALSE", "-addext", f"subjectAltName={','.join(names)}",
                    "-addext", "extendedKeyUsage=serverAuth,clientAuth")
        return Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key")


class Pair:
    """A certificate and its key."""

    def __init__(self, cert: pathlib.Path, key: pathlib.Path):
        self.cert, self.key = cert, key
        self.serial = run("openssl", "x509", "-noout", "-serial", "-in", cert)

    def data(self) -> dict[str, str]:
        return {"tls.crt": self.cert.read_text(), "tls.key": self.key.read_text()}


def openssl_key(folder: pathlib.Path, name: str, subject: str, *more) -> None:
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-subj", subject, "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem", *more)


class Secure:
    """The namespace with what the values ask for, and callers with and without identities."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self.place = folder, Place("secure")
        place, full = self.place, self.place.full
        self.servers, self.clients = Authority(folder, "servers"), Authority(folder, "clients")
        self.names = [f"DNS:{name}.secure{end}" for name in (full, f"{full}-headless") for end in ("", ".svc")]
        self.first = self.servers.issue("first", *self.names)
        self.checkout = self.clients.issue("checkout", CHECKOUT)
        self.unknown = self.clients.issue("unknown", "URI:spiffe://example.org/ns/shop/sa/unknown")
        self.show(self.first.data())
        place.secret("user-service-clients", **{"ca.crt": self.clients.pem})
        place.secret("user-service-test", **self.clients.issue("test", "DNS:test.secure").data())
        place.config_map("user-service-jwks", **{"jwks.json": run("kubectl", "get", "--raw", "/openid/v1/jwks")})
        place.config_map("user-service-ca", **{"ca.crt": self.servers.pem})
        for account in ("caller", "stranger"):
            place.kubectl("create", "serviceaccount", account)
        self.token = self.token_of("caller", "user-service")
        place.grpcurl = self.grpcurl(self.unknown, self.token)
        place.probe = ["-tls", f"-tls-ca-cert={self.servers.file}", f"-tls-client-cert={self.unknown.cert}",
                       f"-tls-client-key={self.unknown.key}"]

    def show(self, data: dict[str, str]) -> None:
        """What the port is to show its clients from now on."""
        self.place.secret("user-service-tls", **data, **{"ca.crt": self.servers.pem})

    def token_of(self, account: str, audience: str) -> str:
        return self.place.kubectl("create", "token", account, "--audience", audience, "--duration", "1h").strip()

    def grpcurl(self, pair: Pair | None, token: str = "") -> list[str]:
        shown = ["-cacert", str(self.servers.file)]
        if pair:
            shown += ["-cert", str(pair.cert), "-key", str(pair.key)]
        return shown + (["-H", f"authorization: Bearer {token}"] if token else [])

    def denied(self, shown: list[str], method: str = "ListUsers") -> str:
        """Why a call is refused. The proto is given, because reflection has a right of its own."""
        return refused("grpcurl", *shown, *self.call(method))

    def call(self, method: str) -> list[str]:
        protos = ["-import-path", str(ROOT / "proto"), "-proto", "user/v1/user_service.proto"]
        return [*protos, "-max-time", "10", self.place.address, f"user.v1.UserService/{method}"]

    def served(self) -> str:
        """The serial number of the certificate that a new connection is shown."""
        shown = subprocess.run(
            ["openssl", "s_client", "-connect", self.place.address, "-alpn", "h2", "-cert", self.unknown.cert, "-key", self.unknown.key],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE).stdout
        said = subprocess.run(["openssl", "x509", "-noout", "-serial"], input=shown, capture_output=True, text=True)
        return said.stdout

    def metric(self, name: str) -> float:
        """Of the one pod, by its admin port, which is plain."""
        [pod] = self.place.pods()
        text = run("curl", "--silent", "--fail", f"http://{pod['status']['podIP']}:9464/metrics")
        return next(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(f"{name} "))

    def hurry(self) -> None:
        """A change of a pod has the kubelet look at its volumes again, which it otherwise
        does once a minute or so."""
        self.changes = getattr(self, "changes", 0) + 1
        self.place.kubectl("annotate", "pods", "--all", "--overwrite", f"example.com/changes={self.changes}")


def a_secure_release_comes_renews_its_certificate_and_goes(_) -> None:
    with tempfile.TemporaryDirectory() as folder:
        secure = Secure(pathlib.Path(folder))
        accepted(secure.place, VALUES, *CERTIFICATE)
        comes_and_goes(secure.place, VALUES.name, meanwhile=lambda: changes(secure))


def changes(secure: Secure) -> None:
    only_identities_with_rights_get_in(secure)
    place = secure.place
    [before] = place.pods()
    certificates_are_renewed_under_calls(secure)
    rules_change(secure)
    [after] = place.pods()
    assert after["metadata"]["uid"] == before["metadata"]["uid"], "the pod was replaced"
    assert place.restarts() == 0, "the container was restarted"


def only_identities_with_rights_get_in(secure: Secure) -> None:
    shown, call = secure.grpcurl, secure.call
    # No TLS, no certificate, a certificate of another authority.
    refused("grpcurl", "-plaintext", *call("ListUsers"))
    refused("grpcurl", *shown(None, secure.token), *call("ListUsers"))
    refused("grpcurl", *shown(secure.first, secure.token), *call("ListUsers"))
    # A certificate that the policy does not name, and one that may only read.
    assert "PermissionDenied" in secure.denied(shown(secure.unknown))
    run("grpcurl", *shown(secure.checkout), *call("ListUsers"))
    assert "PermissionDenied" in secure.denied(shown(secure.checkout), "CreateUser")
    # A token for another service, and one that holds no role; neither is made up for by the certificate.
    other = secure.token_of("caller", "other-service")
    assert "Unauthenticated" in secure.denied(shown(secure.checkout, other))
    assert "PermissionDenied" in secure.denied(shown(secure.checkout, secure.token_of("stranger", "user-service")))


def certificates_are_renewed_under_calls(secure: Secure) -> None:
    """A new certificate is shown to new connections and fails no call, and neither does one
    that is not good."""
    place = secure.place
    token = secure.folder / "token"
    token.write_text(secure.token)
    traffic = Traffic(place.address, place.headless, shown={
        "TLS_CA": str(secure.servers.file), "TLS_CERT": str(secure.unknown.cert), "TLS_KEY": str(secure.unknown.key),
        "TOKEN_FILE": str(token)})
    assert secure.served() == secure.first.serial
    second = secure.servers.issue("second", *secure.names)
    renewed(secure, second)
    # The key of another certificate.
    secure.show({"tls.crt": secure.first.cert.read_text(), "tls.key": second.key.read_text()})
    secure.hurry()
    until("the bad set is refused", lambda: secure.metric("user_service_tls_files_refused") == 1)
    assert secure.served() == second.serial, "a bad set went live"
    renewed(secure, secure.servers.issue("third", *secure.names))
    assert secure.metric("user_service_tls_files_refused") == 0
    calls = traffic.must_have_noticed_nothing()
    print(f"a certificate renewed twice, and a bad one: {calls} calls, 0 failed")


def renewed(secure: Secure, pair: Pair) -> None:
    secure.show(pair.data())
    secure.hurry()
    until("the new certificate is shown", lambda: secure.served() == pair.serial)


def rules_change(secure: Secure) -> None:
    """An upgrade that takes a caller's role away is in force without a new pod."""
    values = yaml.safe_load(VALUES.read_text())
    policy = values["auth"]["policy"]
    policy["inline"] = policy["inline"].replace("secure:caller", "secure:other")
    changed = secure.folder / "values.yaml"
    changed.write_text(yaml.safe_dump(values))
    run("grpcurl", *secure.place.grpcurl, *secure.call("ListUsers"))
    secure.place.upgrade(changed)
    secure.hurry()
    denied = ["grpcurl", *secure.place.grpcurl, *secure.call("ListUsers")]
    until("the caller has lost its role",
          lambda: "PermissionDenied" in subprocess.run(denied, capture_output=True, text=True, timeout=PATIENCE).stderr)
    secure.place.smoke()
