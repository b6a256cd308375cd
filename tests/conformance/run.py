#!/usr/bin/env python3
"""Calls this project's listener and layers with suites that others wrote: the conformance
suite of Connect, and gRPC's interop cases with its client in Go. Prints their own
summaries. With --long the interop cases also run over TLS, and the soaks are as long as
gRPC's description has them. Usage: run.py [--long] SUITE-SERVER"""

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tools"))

from tally import summary, tried  # noqa: E402

# Those of gRPC's client in Go that need no credentials of a cloud. The cases of ORCA are left
# out, because this service sends no load reports.
CASES = """empty_unary large_unary client_streaming server_streaming ping_pong empty_stream
    timeout_on_sleeping_server cancel_after_begin cancel_after_first_response
    status_code_and_message special_status_message custom_metadata unimplemented_method
    unimplemented_service pick_first_unary""".split()
SOAKS = ["rpc_soak", "channel_soak"]
SOAK_ITERATIONS, LONG_SOAK_ITERATIONS = 100, 10_000
# A soak counts a slower call as a failure. On a busy machine that would say nothing of the server.
SLOWEST_CALL_MS = 30_000
# How long anything may take before it counts as hanging.
TIMEOUT_SECONDS = 900


def conformance(server):
    # Some cases have deadlines of less than a second, which many of them together on two cores miss.
    command = [ROOT / "bin/connectconformance", "--mode", "server", "-v", "--parallel", "2", "--max-servers", "2",
               "--conf", HERE / "features.yaml"]
    run = subprocess.run([*command, "--", server], capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    said = run.stdout + run.stderr
    # The summary is behind each failure and its reasons.
    print("\n".join(line for line in said.splitlines() if re.match(r"Computed|Total|\d+ passed", line)))
    assert run.returncode == 0, said
    assert re.search(r"^[1-9]\d* passed, 0 failed", said, re.MULTILINE), said


class Interop:
    """The server of gRPC's test service, and its client."""

    def __init__(self, port, flags):
        self.port = port
        self.flags = flags

    def case(self, name, *flags):
        client = [ROOT / "bin/grpc-interop-client", "--server_host", "127.0.0.1", "--server_port", self.port]
        run = subprocess.run([*client, *self.flags, "--test_case", name, *flags], capture_output=True, text=True,
                             timeout=TIMEOUT_SECONDS, env={**os.environ, "GRPC_GO_LOG_SEVERITY_LEVEL": "info"})
        assert run.returncode == 0, run.stderr
        # A client that did nothing ends well too.
        assert re.search(r"\bdone$", run.stderr, re.MULTILINE | re.IGNORECASE), run.stderr
        return run.stderr

    def soak(self, name, iterations):
        said = self.case(name, "--soak_iterations", str(iterations),
                         "--soak_per_iteration_max_acceptable_latency_ms", str(SLOWEST_CALL_MS),
                         "--soak_overall_timeout_seconds", str(TIMEOUT_SECONDS))
        told = re.search(r"\(server_uri: .*", said)
        print(told[0] if told else said)


@contextlib.contextmanager
def interop(server, certificate=None):
    """A server for the interop cases, over TLS where there is a certificate."""
    flags = []
    if certificate:
        flags = ["--use_tls", "--use_test_ca", "--ca_file", certificate[0]]
    process = subprocess.Popen([server, "--interop", *(certificate or ())], stdout=subprocess.PIPE, text=True)
    try:
        yield Interop(process.stdout.readline().strip(), flags)
    finally:
        process.terminate()
        assert process.wait(TIMEOUT_SECONDS) == 0, "the server ended with an error"


def certificate(folder):
    """A certificate for 127.0.0.1, and its key."""
    paths = [f"{folder}/server.pem", f"{folder}/server.key"]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-out", paths[0],
                    "-keyout", paths[1]], check=True, capture_output=True)
    return paths


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("server")
    arguments = parser.parse_args()
    server = str(Path(arguments.server).resolve())
    began = time.monotonic()
    results = [tried("connect_conformance", conformance, server)]
    with tempfile.TemporaryDirectory() as folder:
        for transport in ["h2c", *(["tls"] if arguments.long else [])]:
            with interop(server, certificate(folder) if transport == "tls" else None) as suite:
                for case in CASES:
                    results.append(tried(f"grpc_interop_{transport}::{case}", suite.case, case))
                for case in SOAKS:
                    iterations = LONG_SOAK_ITERATIONS if arguments.long else SOAK_ITERATIONS
                    results.append(tried(f"grpc_interop_{transport}::{case}", suite.soak, case, iterations))
    summary(sum(results), len(results) - sum(results), began)
    sys.exit(not all(results))


if __name__ == "__main__":
    main()
