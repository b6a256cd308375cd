"""The loads, and what a server used while it bore one."""

import json
import re
import socket
import time
from contextlib import contextmanager

from rig import machine
from rig.identity import IDENTITY
from rig.machine import BIN, CLIENT_CORE, SERVER_CORE
from rig.servers import CONTENT_TYPES, GRPC
from rig.usage import children_seconds, core_seconds, cpu_seconds

# Connections, and streams on each.
SHAPES = {"10 x 20": (10, 20), "50 x 1": (50, 1), "1 x 1": (1, 1), "1 x 100": (1, 100)}
RANDOM = "random keys, 10 x 20"
# h2load's log costs it a write a request, so percentiles come from a run of their own.
MOST_LOGGED = 400_000


def h2load(running, shape, *options):
    connections, streams = SHAPES[shape]
    path, body = running.server.get(running.protocol)
    body_file = SCRATCH / "get.bin"
    body_file.write_bytes(body)
    te = ["-H", "te: trailers"] if running.protocol == GRPC else []
    authorization = ["-H", f"authorization: Bearer {IDENTITY.token}"] if running.server.token else []
    return machine.on_client_core([
        "h2load", "-t1", f"-c{connections}", f"-m{streams}", "-d", body_file,
        "-H", f"content-type: {CONTENT_TYPES[running.protocol]}", *te, *authorization, *options,
        f"{'https' if running.server.tls else 'http'}://127.0.0.1:{running.port}{path}"])


SCRATCH = machine.scratch()


def load(running, *arguments):
    """Runs our own load client and returns what it found."""
    return json.loads(machine.on_client_core([BIN / "load", *running.server.shown(), f"127.0.0.1:{running.port}", *arguments]))


def calls_for(running, shape, seconds):
    """How many calls take about so long."""
    connections, streams = SHAPES[shape]
    rate = float(re.search(r"finished in .*?, ([\d.]+) req/s", h2load(running, shape, "-D", 1))[1])
    return max(connections * streams * 2, int(rate * seconds) // connections * connections)


def same_key(running, shape, seconds, logged_seconds):
    """GetUser of one user, with h2load; with our own load where a certificate is shown, which
    h2load has no option for."""
    if running.server.certificate:
        connections, streams = SHAPES[shape]
        return closed(running, 1, seconds, "--connections", connections, "--streams", streams)
    calls = calls_for(running, shape, seconds)
    with Usage(running.pid) as usage:
        rate = exactly(running, shape, calls)
    found = {"rate": rate, **usage.per_call(calls)}
    if logged_seconds:
        found |= percentiles(running, shape, min(MOST_LOGGED, int(calls / seconds * logged_seconds)))
    return found


def exactly(running, shape, calls):
    """So many calls, all of which must be answered rightly; returns calls a second."""
    printed = h2load(running, shape, "-n", calls)
    succeeded = int(re.search(r"(\d+) succeeded", printed)[1])
    ok = int(re.search(r"status codes: (\d+) 2xx", printed)[1])
    # An error of gRPC is HTTP's 200 too, but it carries no DATA.
    data = int(re.search(r"\((\d+)\) data", printed)[1])
    if (succeeded, ok, data) != (calls, calls, calls * running.data_bytes):
        raise RuntimeError(f"{running.server.name}, {shape}: not every answer is right\n{printed}")
    return float(re.search(r"finished in .*?, ([\d.]+) req/s", printed)[1])


def refused(running, shape, calls):
    """So many calls, none of which may be answered with a user."""
    printed = h2load(running, shape, "-n", calls)
    succeeded = int(re.search(r"(\d+) succeeded", printed)[1])
    # A refusal is all in its head: HTTP's 200, and no DATA.
    data = int(re.search(r"\((\d+)\) data", printed)[1])
    if (succeeded, data) != (calls, 0):
        raise RuntimeError(f"{running.server.name}, {shape}: not every call is refused\n{printed}")


@contextmanager
def one_call_held(running):
    """A GetUser that keeps its permit: its client has no room for the answer."""
    def frame(kind, flags, stream, payload):
        return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload

    def text(value):
        return bytes([len(value)]) + value.encode()

    path, body = running.server.get(GRPC)
    no_window = (4).to_bytes(2, "big") + (0).to_bytes(4, "big")
    # POST and http by their indices, then literals: path, authority, content-type, te.
    head = b"\x83\x86\x04" + text(path) + b"\x01" + text("bench") + b"\x0f\x10" + text("application/grpc") + b"\x00" + \
        text("te") + text("trailers")
    with socket.create_connection(("127.0.0.1", running.port)) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, no_window) + frame(1, 4, 1, head) +
                           frame(0, 1, 1, body))
        with connection.makefile("rb") as answers:
            kind = None
            # Until the head of the answer.
            while kind != 1:
                *length, kind, _ = answers.read(9)[:5]
                answers.read(int.from_bytes(bytes(length), "big"))
        yield


def percentiles(running, shape, calls):
    log = SCRATCH / "latency"
    log.unlink(missing_ok=True)
    h2load(running, shape, "-n", max(calls, SHAPES[shape][0]), "--log-file", log)
    micros = sorted(int(line.split()[2]) for line in log.open())
    return {"p50": micros[len(micros) // 2], "p99": micros[min(len(micros) - 1, len(micros) * 99 // 100)]}


def random_keys(running, users, seconds):
    """GetUser of any user, each as likely as another."""
    return closed(running, users, seconds)


def closed(running, users, seconds, *options):
    """GetUser of any of so many users, with our own load."""
    kind = "get" if running.server.contract == "v1" else "article-get"
    with Usage(running.pid) as usage:
        found = load(running, "closed", "--kind", kind, "--users", users, "--seconds", seconds, *options)
    return {"rate": found["calls"] / found["seconds"], "p50": found["p50_us"], "p99": found["p99_us"],
            **usage.per_call(found["calls"])}


class Usage:
    """CPU of a server, and of everything else, during a `with` block."""

    def __init__(self, pid):
        self.pid = pid

    def _now(self):
        return (cpu_seconds(self.pid), core_seconds(SERVER_CORE),
                core_seconds(CLIENT_CORE), children_seconds(), time.monotonic())

    def __enter__(self):
        self.before = self._now()
        return self

    def __exit__(self, *_):
        self.server, server_core, client_core, self.client, self.seconds = (
            after - before for before, after in zip(self.before, self._now()))
        self.others = max(server_core - self.server, client_core - self.client)

    def per_call(self, calls):
        return {"cpu_us": self.server * 1e6 / calls, "others": self.others / self.seconds,
                "server_busy": self.server / self.seconds, "client_busy": self.client / self.seconds}
