#!/usr/bin/env python3
"""Measures our server beside its peers and prints one Markdown table.

measure.py [SERVER]... (default: all). From the environment:
  SECONDS_A_RUN=8   how long each load lasts
  LOG_SECONDS=2     how long the run lasts that percentiles come from
  ROUNDS=3          how often all of it is done; the order rotates
  USERS=100000      users in the store, and keys that the random load picks from
  IDLE=1000         idle connections
  SERVER_CORE, CLIENT_CORE   default: the first and the last that may be used

docs/PERFORMANCE.md says what the columns mean."""

import sys
import time

from rig import figures, machine, stores
from rig.drivers import RANDOM, SHAPES, h2load, random_keys, same_key
from rig.figures import markdown
from rig.machine import CLIENT_CORE, SERVER_CORE, setting
from rig.results import Results
from rig.servers import GO, HYPER, SERVERS, TONIC, running
from rig.usage import rss_kib

SECONDS = setting("SECONDS_A_RUN", 8.0)
LOG_SECONDS = setting("LOG_SECONDS", 2.0)
ROUNDS = setting("ROUNDS", 3)
USERS = setting("USERS", 100_000)
IDLE = setting("IDLE", 1000)
WARM_UP_SECONDS = 2
AT_REST = "idle"
LOADS = [AT_REST, *SHAPES, RANDOM]


def measure_idle(server, store, results):
    with running(server, store) as process:
        script = machine.ROOT / "benches/rig/idle.py"
        printed = machine.on_client_core([sys.executable, script, process.port, process.pid, IDLE, *server.shown()])
        grown, alive = map(int, printed.split())
        if alive != IDLE:
            raise RuntimeError(f"{server.name} closed {IDLE - alive} of {IDLE} idle connections")
        results.add((AT_REST, server.name), idle_bytes=grown)


def measure_loads(server, store, results):
    with running(server, store) as process:
        results.add((AT_REST, server.name), rss=rss_kib(process.pid) / 1024)
        h2load(process, "10 x 20", "-D", WARM_UP_SECONDS)
        for load in SHAPES:
            found = same_key(process, load, SECONDS, LOG_SECONDS)
            results.add((load, server.name), **found, rss=rss_kib(process.pid) / 1024)
        if server.contract == "article":
            stores.fill(process, USERS)
        found = random_keys(process, USERS, SECONDS)
        results.add((RANDOM, server.name), **found, rss=rss_kib(process.pid) / 1024)
        process.check()


def table(results, names):
    head = ["load", "server", "calls/s", "CPU us/call", "CPU x tonic", "CPU x raw-hyper", "CPU x grpc-go", "p50 us",
            "p99 us", "RSS MiB", "bytes an idle connection", "idle x tonic", "server busy", "load busy"]
    rows = []
    for load in LOADS:
        for name in names:
            row = load, name
            ratios = [results.ratio(row, (load, other), "cpu_us") for other in (TONIC, HYPER, GO)]
            busy = [results.median(row, column) for column in ("server_busy", "client_busy")]
            rows.append([
                *row, results.figure(row, "rate"), results.figure(row, "cpu_us", 2), *ratios,
                results.figure(row, "p50"), results.figure(row, "p99"), results.figure(row, "rss", 1),
                results.figure(row, "idle_bytes"), results.ratio(row, (load, TONIC), "idle_bytes"),
                *("-" if share is None else f"{share:.0%}" for share in busy)])
    return markdown(head, rows)


def kept(results, names):
    """The medians, by load, server and column."""
    columns = ["cpu_us", "rate", "p50", "p99", "rss", "idle_bytes"]
    medians = {load: {name: {column: results.median((load, name), column) for column in columns} for name in names}
               for load in LOADS}
    return {load: {name: {column: value for column, value in of.items() if value is not None}
                   for name, of in servers.items()} for load, servers in medians.items()}


def main():
    names = sys.argv[1:] or list(SERVERS)
    if unknown := [name for name in names if name not in SERVERS]:
        sys.exit(f"unknown: {', '.join(unknown)}; there are: {'; '.join(SERVERS)}")
    began, results = time.time(), Results()
    store = stores.holding(USERS)
    for number in range(ROUNDS):
        first = number * len(names) // ROUNDS
        for name in names[first:] + names[:first]:
            measure_idle(SERVERS[name], store, results)
            measure_loads(SERVERS[name], store, results)
            machine.say(f"round {number + 1} of {ROUNDS}: {name}")
    print(f"Medians of {ROUNDS} interleaved rounds, {SECONDS:g} s a load, ± half the distance between the rounds; "
          f"{USERS:,} users; server on core {SERVER_CORE}, load on core {CLIENT_CORE}; "
          f"{time.strftime('%Y-%m-%d %H:%M')}, {time.time() - began:.0f} s. Share of a core that anything else took, "
          f"at worst: {results.worst('others'):.0%}.\n")
    print(table(results, names))
    figures.keep(figures.LATEST, "peers", kept(results, names))


if __name__ == "__main__":
    main()
