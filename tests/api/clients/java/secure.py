#!/usr/bin/env python3
"""Makes every call with grpc-java by TLS, and by TLS with a client certificate, each with a
token, and sees that calls without a token fail. Usage: secure.py USER-SERVICE"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[4]
sys.path[:0] = [str(ROOT / "benches"), str(ROOT / "tools")]

from rig.identity import AUDIENCE, IDENTITY, ISSUER  # noqa: E402
from tally import summary, tried  # noqa: E402

GROUPS = ("bare", "retried", "watch", "import")
PATIENCE = 120
CLASSES = ROOT / "target" / "clients" / "java"


def serving(binary, *more):
    """A server with TLS and a policy, and the port that it listens on."""
    files = IDENTITY.token_file.parent
    server = subprocess.Popen(
        [binary, "--store-url", "memory:", "--grpc-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0",
         "--tls-cert-file", IDENTITY.cert("server"), "--tls-key-file", IDENTITY.key("server"),
         "--auth-policy-file", files / "policy.toml", "--auth-jwks-file", files / "jwks.json",
         "--auth-issuer", ISSUER, "--auth-audience", AUDIENCE, "--call-log", "false", *more],
        stderr=subprocess.PIPE, text=True)
    for line in server.stderr:
        if line.startswith("{") and (address := json.loads(line).get("grpc_addr")):
            return server, int(address.rsplit(":", 1)[1])
    raise AssertionError("the server has ended")


def saw(port, **shown):
    """What the groups of callers saw until each has made some calls."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as config:
        config.write("{}")
        config.flush()
        client = subprocess.Popen(
            ["java", "-XX:+UseSerialGC", "-cp", f"{CLASSES}/classes:{CLASSES}/lib/*", "Mixed", config.name, "50", "0",
             f"direct=localhost:{port}"],
            env=os.environ | {"TLS_CA": str(IDENTITY.ca)} | shown, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        calls, failed, until = dict.fromkeys(GROUPS, 0), [], time.monotonic() + PATIENCE
        try:
            while min(calls[group] for group in ("bare", "retried", "import")) < 20 and not failed:
                assert time.monotonic() < until, f"only {calls}"
                time.sleep(0.2)
                client.stdin.write("\n")
                client.stdin.flush()
                count(json.loads(client.stdout.readline()), calls, failed)
        finally:
            client.kill()
            client.wait()
        return calls, failed


def count(report, calls, failed):
    for group in report:
        calls[group["kind"]] += group["calls"]
        failed += group["failed"]


def every_call_by_tls_with_a_token(binary):
    checked(binary, [], {}, "UNAUTHENTICATED")


def every_call_by_mutual_tls_with_a_token(binary):
    pair = {"TLS_CERT": str(IDENTITY.cert("client")), "TLS_KEY": str(IDENTITY.key("client"))}
    # The certificate is an identity to which the policy grants nothing.
    checked(binary, ["--tls-client-ca-file", IDENTITY.ca], pair, "PERMISSION_DENIED")


def checked(binary, flags, pair, without_token):
    server, port = serving(binary, *flags)
    try:
        calls, failed = saw(port, TOKEN_FILE=str(IDENTITY.token_file), **pair)
        assert not failed, failed
        print(f"grpc-java: {calls}")
        _, failed = saw(port, **pair)
        assert any(without_token in why for why in failed), f"without a token: {failed}"
    finally:
        server.terminate()
        server.wait(PATIENCE)


def main():
    began = time.monotonic()
    tests = [every_call_by_tls_with_a_token, every_call_by_mutual_tls_with_a_token]
    passed = [tried(test.__name__, test, sys.argv[1]) for test in tests]
    summary(passed.count(True), passed.count(False), began)
    sys.exit(not all(passed))


main()
