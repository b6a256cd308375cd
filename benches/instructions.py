#!/usr/bin/env python3
"""Counts the instructions of a unary call in user space and fails where ours has
grown by more than 5% since the figure in instructions.json was recorded, or where a
refused call has. The count does not depend on what else the machine does.

instructions.py            compare
instructions.py --record   write down today's figures instead

Each count is the difference between a short run and a long one under callgrind,
divided by the calls between them, so that start and end fall out."""

import dataclasses
import itertools
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

from rig import machine, stores
from rig.drivers import SCRATCH, exactly, load, one_call_held, refused
from rig.machine import setting
from rig.servers import HYPER, OURS_ALL, SERVERS, TONIC, running

RECORD = Path(__file__).with_suffix(".json")
MOST_GROWTH = 1.05
# Ours over theirs at most.
GOALS = {HYPER: 1.25, TONIC: 0.80}
# A refusal over a create at most.
REFUSAL_GOAL = 0.15
LOAD = "10 x 20"
SHORT, LONG = 2_000, 6_000
USERS = setting("USERS", 100_000)
# Each count creates users that the others do not.
CREATED = itertools.count()
ROUNDS = setting("ROUNDS", 3)


CREATE, REFUSED = "CreateUser", "GetUser, refused"
# One permit, and a call that keeps it for as long as the count takes.
# A refusal is logged as a warning.
FULL = ["--log-filter", "error", "--max-unary-calls", "1", "--default-timeout-ms", "86400000", "--max-timeout-ms", "86400000"]

# So many calls a second have a line in the log, whatever their number: one in a
# thousand as a rule, and every fifth one at callgrind's pace. So no line is written;
# what decides about lines is counted.
COUNTED = {OURS_ALL: ["--log-filter", "warn"]}


def get(process, calls):
    exactly(process, LOAD, calls)


def create(process, calls):
    first = 10**7 + next(CREATED) * LONG
    load(process, "closed", "--kind", "create", "--first", first, "--calls", calls)


def refuse(process, calls):
    with one_call_held(process):
        refused(process, LOAD, calls)


def instructions(server, store, calls, drive):
    """Of a whole life of a server in which it answers so many calls."""
    log = SCRATCH / "callgrind.log"
    wrapper = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={SCRATCH / 'callgrind.out'}",
               f"--log-file={log}"]
    with running(server, store, wrapper=wrapper) as process:
        drive(process, calls)
    collected = re.search(r"Collected : (\d+)", log.read_text())
    if not collected:
        raise RuntimeError(f"callgrind counted nothing:\n{log.read_text()[-2000:]}")
    return int(collected[1])


def per_call(name, store, what="GetUser", drive=get, flags=()):
    counts = []
    for _ in range(ROUNDS):
        server = SERVERS[name]
        server = dataclasses.replace(server, command=[*server.command, *COUNTED.get(name, []), *flags])
        short, long = (instructions(server, store, calls, drive) for calls in (SHORT, LONG))
        counts.append((long - short) / (LONG - SHORT))
    machine.say(f"{name}, {what}: {', '.join(f'{count:,.0f}' for count in sorted(counts))}")
    return round(statistics.median(counts))


def version(*command):
    return subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout.strip()


def verdict(now, then):
    """Prints the comparison; returns whether ours has not grown too much."""
    print("| server | instructions a call | recorded | now / recorded |\n|---|--:|--:|--:|")
    for name, count in now["per_call"].items():
        recorded = then["per_call"][name]
        print(f"| {name} | {count:,} | {recorded:,} | {count / recorded:.3f} |")
    for name, count in now["of_ours"].items():
        recorded = then["of_ours"][name]
        print(f"| {OURS_ALL}, {name} | {count:,} | {recorded:,} | {count / recorded:.3f} |")
    print()
    goals(now)
    for tool in ("rustc", "valgrind"):
        if now[tool] != then[tool]:
            print(f"Recorded with {then[tool]}; this is {now[tool]}.")
    # A create has commits in it, whose number depends on the disk.
    growth = max(now[of][name] / then[of][name] for of, name in (("per_call", OURS_ALL), ("of_ours", REFUSED)))
    if growth > MOST_GROWTH:
        print(f"FAILED: a call takes {growth - 1:.1%} more instructions than recorded; {MOST_GROWTH - 1:.0%} are "
              "allowed. Where it is worth that, record it: make bench-instructions RECORD=--record")
    elif growth < 1 / MOST_GROWTH:
        print("A gain: record it, or it can be lost again unseen.")
    return growth <= MOST_GROWTH


def goals(now):
    ours, of_ours = now["per_call"][OURS_ALL], now["of_ours"]
    ratios = [(f"ours / {name}", ours / now["per_call"][name], most) for name, most in GOALS.items()]
    ratios.append((f"a refusal / {CREATE}", of_ours[REFUSED] / of_ours[CREATE], REFUSAL_GOAL))
    for what, ratio, most in ratios:
        print(f"{what}: {ratio:.2f} (goal: {most:.2f} or less{'' if ratio <= most else ', not reached'})")


def main():
    store = stores.holding(USERS)
    now = {"rustc": version("rustc"), "valgrind": version("valgrind"),
           "per_call": {name: per_call(name, store) for name in (OURS_ALL, HYPER, TONIC)},
           "of_ours": {CREATE: per_call(OURS_ALL, SCRATCH / "creates.db", CREATE, create),
                       REFUSED: per_call(OURS_ALL, store, REFUSED, refuse, FULL)}}
    if sys.argv[1:] == ["--record"]:
        RECORD.write_text(json.dumps(now, indent=2) + "\n")
        print(RECORD.read_text(), end="")
        return goals(now)
    return None if verdict(now, json.loads(RECORD.read_text())) else sys.exit(1)


if __name__ == "__main__":
    main()
