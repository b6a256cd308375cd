"""Calls through nginx, HAProxy and Caddy: while connections age, replicas are rolled out
and killed, as pages call, and with lines of the configurations changed. With --long for
minutes, with grpc-java too, and into the tables of docs/PROXIES.md.
Usage: run.py [--long] USER-SERVICE"""

import argparse
import collections
import contextlib
import re
import sys
import time

from place import CLIENT_COMMANDS, PROXIES, Client, Place, until

import lines
import pages
import tables
from tally import summary, tried

# How long connections age early; how often replicas are rolled out and killed; by which
# clients. Those in Java and what compiles them are too much for the short form.
Length = collections.namedtuple("Length", "ages_seconds rollouts kills clients")
GATE = Length(8, 1, 1, ["grpc-go", "grpcio", "grpc-js"])
LONG = Length(180, 10, 10, list(CLIENT_COMMANDS))
# More than 1 MiB for each import.
USERS = 6_000
# How long clients have to go on behind an event, in seconds.
SETTLE = 2
AGE_MS = 500
STREAMS = ["watch", "import"]
KINDS = ["bare", "retried", *STREAMS]

# How a stream ends that its client is to go on with, which is no failure. A GOAWAY with an
# error code is one.
PLANNED = "UNAVAILABLE: (?!.*(GOAWAY|PROTOCOL_ERROR|[Pp]rotocol error)).*"

# What a proxy does not permit, each a row of docs/PROXIES.md: patterns of the phase, the
# proxy, the client, the kind of calls, and of how a call ends.
PERMITTED = [
    # nginx asks no replica whether it is ready, and one that starts says that it does.
    ("rollouts|kills", "nginx", ".*", "bare|retried", "UNAVAILABLE: the server is starting"),
    # What a replica has in flight when it is killed ends with it.
    ("kills", ".*", ".*", ".*", "(UNAVAILABLE|INTERNAL|UNKNOWN|CANCELL?ED).*"),
    # HAProxy gave the call to a connection that was ending. That no replica cut a call, the phases ask.
    ("ages|rollouts", "haproxy", ".*", "bare|retried", "UNAVAILABLE: .*(REFUSED_STREAM|error code 7|Stream refused).*"),
    # Seen twice: a call reached the other replica, and its request did not.
    ("rollouts|kills", "caddy", ".*", "bare|retried", "DEADLINE_?EXCEEDED.*"),
]


def ages(place: Place, length: Length) -> None:
    """Connections to the replicas live for half a second each."""
    time.sleep(length.ages_seconds)
    for replica in place.replicas:
        cut = replica.calls_cut()
        assert cut == 0, f"{replica.address} cut {cut} calls"


def back(place: Place, replica) -> None:
    """Starts a replica, and waits until the proxies use it."""
    replica.start()
    time.sleep(SETTLE)
    until(f"proxies use {replica.address}", lambda: place.used(replica))


def rollouts(place: Place, length: Length) -> None:
    """The replicas are replaced one after the other."""
    for _ in range(length.rollouts):
        for replica in place.replicas:
            code = replica.stop()
            back(place, replica)
            assert code == 0, f"{replica.address} ended with {code}: calls were cut"


def kills(place: Place, length: Length) -> None:
    """A replica is gone without a word, and comes back."""
    for number in range(length.kills):
        replica = place.replicas[number % 2]
        replica.kill()
        time.sleep(SETTLE)
        back(place, replica)


PHASES = [ages, rollouts, kills]


class Seen:
    """Calls and failures, by phase, proxy, client and kind of calls."""

    def __init__(self, clients: list[str]):
        self.clients, self.calls, self.texts = clients, collections.Counter(), collections.Counter()

    def add(self, phase: str, reports: list[dict]) -> None:
        for said in reports:
            key = phase, said["target"], said["client"], said["kind"]
            self.calls[key] += said["calls"]
            for text, count in said["failed"].items():
                if said["kind"] not in STREAMS or not re.fullmatch(PLANNED, ending(text), re.S):
                    self.texts[(*key, text)] += count

    def failed(self, *key: str) -> int:
        return sum(count for (*where, _), count in self.texts.items() if where == list(key))

    def table(self, phase: str) -> None:
        print(f"\n{phase}: failed / calls")
        print(f"{'':22}" + "".join(f"{proxy:>16}" for proxy in PROXIES))
        for client in self.clients:
            for kind in KINDS:
                keys = [(phase, proxy, client, kind) for proxy in PROXIES]
                cells = [f"{self.failed(*key)} / {self.calls[key]}" for key in keys]
                print(f"{client:12}{kind:10}" + "".join(f"{cell:>16}" for cell in cells))
        for (of, *where, text), count in sorted(self.texts.items()):
            if of == phase:
                print(f"  {count:5} {' '.join(where)}: {text}")
        sys.stdout.flush()

    def must_be_clean(self, phase: str, proxy: str) -> None:
        """Every client has called through the proxy, and what failed had to."""
        for client in self.clients:
            for kind in ("bare", "retried"):
                assert self.calls[phase, proxy, client, kind], f"{client} made no {kind} call"
        wrong = [f"{count} {key}" for key, count in self.texts.items() if key[:2] == (phase, proxy) and not permitted(*key)]
        assert not wrong, "\n".join(wrong)


def ending(text: str) -> str:
    """The code and the message of a text that says a method first."""
    ended = re.search(r"(\w+): (.*)", text, re.S)
    return f"{ended[1].upper()}: {ended[2]}" if ended else text


def permitted(phase: str, proxy: str, client: str, kind: str, text: str) -> bool:
    """Whether docs/PROXIES.md says that a call may end so."""
    said = phase, proxy, client, kind, ending(text)
    return any(all(re.fullmatch(pattern, part, re.S) for pattern, part in zip(row, said)) for row in PERMITTED)


class Tests:
    """Counts tests."""

    def __init__(self):
        self.passed = self.failed = 0

    def run(self, name: str, test, *arguments) -> None:
        passed = tried(name, test, *arguments)
        self.passed += passed
        self.failed += not passed


def under_traffic(place: Place, length: Length, tests: Tests) -> Seen:
    for replica in place.replicas:
        replica.start(max_connection_age_ms=AGE_MS)
    targets = {name: place.proxy(name) for name in PROXIES}
    config = place.service_config()
    clients = [Client(place, name, config, USERS, targets) for name in length.clients]
    seen = Seen(length.clients)

    def reported(phase: str) -> None:
        seen.add(phase, [said for client in clients for said in client.report()])

    def all_call() -> bool:
        reported("ages")
        return all(seen.calls["ages", proxy, client, kind]
                   for proxy in PROXIES for client in length.clients for kind in ("bare", "retried"))

    try:
        until("all clients call through all proxies", all_call)
    except SystemExit:
        seen.table("ages")
        raise
    for phase in PHASES:
        tests.run(phase.__name__, phase, place, length)
        reported(phase.__name__)
        if phase is PHASES[-1]:
            for client in clients:
                client.finish()
            for client in clients:
                seen.add(phase.__name__, client.last_report())
        seen.table(phase.__name__)
        for proxy in PROXIES:
            tests.run(f"{phase.__name__}_fail_no_call_through_{proxy}", seen.must_be_clean, phase.__name__, proxy)
    return seen


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--long", action="store_true")
    arguments.add_argument("binary")
    chosen, began, tests = arguments.parse_args(), time.monotonic(), Tests()
    with contextlib.ExitStack() as stack:
        place = Place(stack, chosen.binary)
        seen = under_traffic(place, LONG if chosen.long else GATE, tests)
        for replica in place.replicas:
            if replica.running():
                replica.kill()
            replica.start(watch_heartbeat_ms=lines.HEARTBEAT_MS, cors_allowed_origins=pages.ORIGIN)
        for test in pages.TESTS + (lines.LONG if chosen.long else lines.SHORT):
            tests.run(test.__name__, test, place)
        for proxy, line, what, saw in lines.SEEN:
            print(f"{proxy:9}{line:35}{what:45}{saw}")
        if chosen.long:
            tables.write(seen, LONG, lines.SEEN)
    summary(tests.passed, tests.failed, began)
    sys.exit(tests.failed > 0)


if __name__ == "__main__":
    main()
