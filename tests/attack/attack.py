#!/usr/bin/env python3
"""Attacks a server from one loopback address while another one makes honest calls.

usage: attack.py [--short] [--record] [--only WORDS] BINARY

Each attack has a server of its own. The same attack is first aimed at a sink, which reads
everything and answers nothing, so that the honest calls of both runs share the machine with
the same attacker. The bounds: the server grows by 64 MiB at most; what must be cut is cut
within 10 s; no honest call fails; 99% of the honest calls take at most twice as long as next
to the sink. --short tries a part of the attacks without the sink, and judges no times of
calls. --record writes the table into docs/RELIABILITY.md."""

import argparse
import itertools
import resource
import sys
import time
from pathlib import Path

import honest
from attacks import ATTACKS, SHORT, Report
from http1 import HTTP1_ATTACKS
from servers import FORK, Server, Sink

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tools"))

from marked import replaced  # noqa: E402
from tally import summary  # noqa: E402

MOST_GROWTH = 64 << 20
# A handshake has 10 s, and then there is the lingering close.
MOST_SECONDS = 12.5
MOST_SLOWER = 2
# A short run that takes longer hangs.
SHORT_SECONDS = 120
# Below this the times of calls are those of the scheduler.
LEAST_P99 = 0.005
DOCUMENT = ROOT / "docs/RELIABILITY.md"


def meanwhile(function, *arguments):
    """Runs a function in a process of its own. Returns what waits for its result."""
    here, there = FORK.Pipe(duplex=False)
    process = FORK.Process(target=lambda: there.send(function(*arguments)))
    process.start()
    there.close()

    def result():
        try:
            return here.recv()
        finally:
            process.join()
    return result


def quantile(times, q):
    return sorted(times)[int(len(times) * q)] if times else float("inf")


def run(server, attack, target, seconds, once=False):
    """One attack on a target next to honest calls of the server."""
    before, resident = server.cpu(), server.resident()
    server.forget_peak()
    until = time.monotonic() + seconds
    calls = meanwhile(honest.load, server, lambda: time.monotonic() >= until)
    report = meanwhile(attack.run, target, until, once)()
    times, failed = calls()
    return report, {
        "growth": max(0, server.resident("VmHWM") - resident), "cpu": (server.cpu() - before) / seconds,
        "p50": quantile(times, 0.5), "p99": quantile(times, 0.99), "failed": failed, "calls": len(times),
    }


def faults(attack, report: Report, most_seconds=MOST_SECONDS):
    """What is out of bounds in the way that an attack ended."""
    if not report.connections:
        yield "no connection was made"
    if attack.ends == "cut":
        if report.left and not report.cuts:
            yield "not cut"
        elif max(report.cuts, default=0) > most_seconds:
            yield f"cut only after {max(report.cuts):.1f} s"
    if attack.ends == "answered" and (report.answered_after is None or report.answered_after > most_seconds):
        yield f"{report.unanswered} calls are not answered"
    told = "GOAWAY(11)" if attack.policed else attack.told
    if not report.how.startswith(told):
        yield f"not told {told}: {report.how}"


def costs(seen, beside):
    """What is out of bounds in what it cost."""
    if seen["growth"] > MOST_GROWTH:
        yield f"{seen['growth'] >> 20} MiB more"
    if seen["failed"]:
        yield f"{seen['failed']} honest calls failed"
    if seen["p99"] > MOST_SLOWER * max(beside["p99"], LEAST_P99 / MOST_SLOWER):
        yield f"honest calls take {seen['p99'] / beside['p99']:.1f} times as long"


def ending(attack, report):
    """When and how it ended, for the table."""
    if attack.ends == "answered" and report.answered_after is not None:
        return f"every call answered within {report.answered_after:.1f} s"
    if report.cuts:
        rest = f"; {report.left} stay" if report.left and report.connections > 1 and attack.ends == "bounded" else ""
        return f"{max(report.cuts):.2f} s: {report.how}{rest}"
    return "bounded, not cut"


def row(attack, report, seen, beside):
    return (f"| {attack.name} | {report.sent or report.connections:,} | {ending(attack, report)} | {seen['growth'] / (1 << 20):.0f} "
            f"| {seen['cpu']:.0%} ({beside['cpu']:.0%}) | {seen['p50'] * 1e3:.2f} ({beside['p50'] * 1e3:.2f}) "
            f"| {seen['p99'] * 1e3:.2f} ({beside['p99'] * 1e3:.2f}) |")


HEAD = """| attack | frames or connections | cut after: how | MiB more | CPU of a core | p50, ms | p99, ms |
|---|--:|---|--:|--:|--:|--:|"""


def in_full(binary, attacks):
    rows, failures = [HEAD], []
    print(HEAD, flush=True)
    for attack in attacks:
        server, sink = Server(binary, attack.descriptors, attack.asks), Sink()
        try:
            _, beside = run(server, attack, sink, min(attack.seconds, 6))
            report, seen = run(server, attack, server, attack.seconds)
        finally:
            sink.stop()
            code = server.stop()
        rows.append(row(attack, report, seen, beside))
        print(rows[-1], flush=True)
        wrong = itertools.chain(faults(attack, report), costs(seen, beside))
        failures += [f"{attack.name}: {fault}" for fault in wrong]
        if code not in (0, 75):
            failures.append(f"{attack.name}: the server ended with {code}")
    return rows, failures


def in_short(binary, attacks):
    """All attacks on one server: those that take a while concurrently, the floods one after the other. Each ends
    when the server has ended it, however long that takes next to the rest of the machine's work."""
    began = time.monotonic()
    server = Server(binary)
    over = FORK.Event()
    try:
        resident = server.resident()
        server.forget_peak()
        until = time.monotonic() + SHORT_SECONDS
        slow = [attack for attack in attacks if attack.seconds > 10]
        waiting = [meanwhile(attack.run, server, until, True) for attack in slow]
        calls = meanwhile(honest.load, server, over.is_set)
        reports = [(attack, meanwhile(attack.run, server, until, True)()) for attack in attacks if attack not in slow]
        reports += zip(slow, [report() for report in waiting])
        over.set()
        times, failed = calls()
        growth = max(0, server.resident("VmHWM") - resident)
    finally:
        over.set()
        server.stop()
    wrong = {attack.name: list(faults(attack, report, SHORT_SECONDS)) for attack, report in reports}
    wrong["the server grows"] = [f"{growth >> 20} MiB more"] if growth > MOST_GROWTH else []
    wrong["honest calls"] = [f"{failed} of {len(times)} failed"] if failed or not times else []
    endings = {attack.name: ending(attack, report) for attack, report in reports}
    for name, found in wrong.items():
        print(f"{name}: {'; '.join(found) or endings.get(name, 'ok')}")
    failures = sum(map(bool, wrong.values()))
    summary(len(wrong) - failures, failures, began)
    return failures


def record(rows):
    DOCUMENT.write_text(replaced(DOCUMENT.read_text(), "attacks", "\n".join(rows)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--only", default="", help="attacks with this in their names")
    arguments = parser.parse_args()
    if arguments.record and (arguments.only or arguments.short):
        parser.error("--record writes the whole table, so it needs every attack")
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    chosen = [attack for attack in ATTACKS + HTTP1_ATTACKS if arguments.only in attack.name]
    if arguments.short:
        sys.exit(bool(in_short(arguments.binary, [attack for attack in chosen if attack.policed or attack.name in SHORT])))
    rows, failures = in_full(arguments.binary, chosen)
    if arguments.record:
        record(rows)
    for failure in failures:
        print(f"FAILED: {failure}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
