#!/usr/bin/env python3
"""Measures what our server costs beyond a GetUser of one user, and prints one
Markdown table.

costs.py [PART]... (default: all): creates, batch, list, start, gets, overload,
slow_commits, postgres, imports, protocols,
access.
From the environment:
  SECONDS_A_RUN=5                       how long each load lasts
  ROUNDS=3                              how often those on PostgreSQL are repeated
  LIST_USERS=1000000                    users in the listing
  GET_USERS="1000 100000 10000000"      users that random reads pick from
  IMPORT_USERS=1000000                  users that are imported
  USERS=100000                          users in the store of everything else
Stores are filled through the service once, some 80,000 users a second, and kept.

docs/PERFORMANCE.md says what the rows mean."""

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import closing, contextmanager

from rig import figures, machine, postgres, stores
from rig.drivers import Usage, load, same_key
from rig.figures import markdown
from rig.machine import BIN, SERVER_CORE, setting
from rig.results import Results
from rig.servers import (CONNECT_GO, CONNECT_RUST, CONTENT_TYPES, GO, GRPC, OURS_ALL, ON_POSTGRES, SERVERS, TRACES,
                         running)
from rig.usage import rss_kib

ROUNDS = setting("ROUNDS", 3)
SECONDS = setting("SECONDS_A_RUN", 5.0)
USERS = setting("USERS", 100_000)
LIST_USERS = setting("LIST_USERS", 1_000_000)
IMPORT_USERS = setting("IMPORT_USERS", 1_000_000)
GET_USERS = [int(n) for n in os.environ.get("GET_USERS", "1000 100000 10000000").split()]
OURS = SERVERS[OURS_ALL]
# What the service puts into one commit at most.
MOST_IN_A_COMMIT = 256
# Calls a second that the load, on one core, can offer without falling behind.
MOST_OFFERED = 30_000
STREAMS = 64
# Larger reads in flight: as many as run concurrently, and as many that wait, so none is refused.
LARGER_READS = 16
# A server that is short of CPU has so much of its core, so that the load is not; a client of
# grpc-go takes four times the CPU of ours.
CPU_SHARE, CPU_SHARE_GO = 0.25, 0.1
SHORT_OF_CPU = "CreateUser on SQLite, a quarter of a core"
OVERLOAD_SECONDS, RECOVERY_SECONDS = 30, 2
# Of an open loop, and of the closed one that its peak is taken from.
CONNECTIONS, IN_FLIGHT = 100, 1000
# What plots are made of, by part.
KEPT = defaultdict(lambda: defaultdict(dict))
HEAD = ["what", "a second", "p50 us", "p99 us", "CPU us each", "beside"]


def row(what, found, usage, beside="", each=1):
    calls = found["calls"] * each
    micros = [f"{found[key]:,}" for key in ("p50_us", "p99_us")]
    return [what, f"{calls / found['seconds']:,.0f}", *micros, f"{usage.server * 1e6 / max(calls, 1):.2f}", beside]


def closed(process, kind, in_flight, *options, connections=None):
    """Keeps so many calls in flight; returns what was found, and what was used."""
    connections = connections or -(-in_flight // STREAMS)
    with Usage(process.pid) as usage:
        found = load(process, "closed", "--kind", kind, "--connections", connections,
                     "--streams", in_flight // connections, "--seconds", SECONDS, *options)
    return found, usage


def disk(*arguments):
    """What the disk or SQLite alone does in a second, on the server's core."""
    path = machine.scratch(on_disk=True) / "file"
    command = machine.pinned(SERVER_CORE, [BIN / "disk", path, "--seconds", SECONDS, *arguments])
    return json.loads(machine.run(command))["per_second"]


def fresh():
    return machine.scratch(on_disk=True) / "users.db"


def creates():
    syncs = disk("fdatasync")
    yield ["fdatasync of 4 KiB", f"{syncs:,.0f}", "", "", "", ""]
    for in_flight in (1, 16, 256, 1024):
        batch = min(in_flight, MOST_IN_A_COMMIT)
        bare = disk("sqlite", "--batch", batch)
        yield [f"bare SQLite, {batch} users a commit", f"{bare:,.0f}", "", "", "", ""]
        with running(OURS, fresh()) as process:
            found, usage = closed(process, "create", in_flight)
        rate = found["calls"] / found["seconds"]
        KEPT["creates"][in_flight] = {"ours": rate, "bare_sqlite": bare, "fdatasync": syncs}
        yield row(f"CreateUser, {in_flight:,} in flight", found, usage,
                  f"{rate / bare:.2f} x bare SQLite, {rate / syncs:.2f} x fdatasync")


def batch():
    with running(OURS, stores.holding(USERS)) as process:
        found, usage = closed(process, "batch", 16, "--users", USERS)
        yield row("users by BatchGetUsers of 100, 16 in flight", found, usage, each=100)


def listing():
    with running(OURS, stores.holding(LIST_USERS)) as process:
        with Usage(process.pid) as usage:
            # The store holds u-1 as well.
            found = load(process, "list", "--users", LIST_USERS + 1)
        yield row(f"users by ListUsers, all of {LIST_USERS:,}, 1,000 a page", found, usage,
                  f"{found['seconds']:.2f} s", each=1000)


def start():
    store = stores.holding(USERS)
    millis = [exec_to_serving(store) for _ in range(5)]
    spread = (max(millis) - min(millis)) / 2
    yield [f"exec to SERVING, {USERS:,} users", "", "", "", "", f"{statistics.median(millis):.1f} ms ±{spread:.1f}"]
    with running(OURS, store) as process:
        time.sleep(2)
        yield ["RSS when idle", "", "", "", "", f"{rss_kib(process.pid) / 1024:.1f} MiB"]


def exec_to_serving(store):
    port = machine.port()
    values = {"port": port, "admin": port + 1000, "store": store}
    server = [str(part).format(**values) for part in OURS.command]
    command = [BIN / "load", f"127.0.0.1:{port}", "start", "--", *machine.pinned(SERVER_CORE, server)]
    return json.loads(machine.on_client_core(command, env={**os.environ, **TRACES}))["serving_ms"]


def gets():
    first = None
    for users in GET_USERS:
        with running(OURS, stores.holding(users)) as process:
            load(process, "closed", "--kind", "get", "--users", users, "--seconds", SECONDS)
            found, usage = closed(process, "get", 200, "--users", users)
            each = usage.server / found["calls"]
            first = first or each
            yield row(f"GetUser by a random id of {users:,}", found, usage, f"{each / first:.2f} x the fewest")


def overload():
    with running(OURS, fresh()) as process, machine.held(process.pid, CPU_SHARE):
        peak = yield from open_loop(process, "create", SHORT_OF_CPU)
        load(process, "open", "--kind", "create", "--first", 10**9, "--rate", peak * 3, "--seconds", OVERLOAD_SECONDS)
        time.sleep(RECOVERY_SECONDS)
        found, usage = closed(process, "create", IN_FLIGHT, "--first", 2 * 10**9, "--tolerant", connections=CONNECTIONS)
        yield row(f"CreateUser, closed loop, {RECOVERY_SECONDS} s after {OVERLOAD_SECONDS} s at 3x", found, usage,
                  f"{found['calls'] / found['seconds'] / peak:.2f} of the peak; {others(found)}")
    with running(OURS, fresh()) as process, machine.held(process.pid, CPU_SHARE_GO):
        yield from open_loop(process, "article-create", "CreateUser on SQLite, a tenth of a core, called by grpc-go", client=go_load)
    with running(OURS, stores.holding(USERS)) as process:
        for kind, what in (("batch", "BatchGetUsers of 100"), ("page", "ListUsers of 1,000")):
            yield from open_loop(process, kind, f"{what} on SQLite, one core for both", "--users", USERS, in_flight=LARGER_READS)
    yield from slow_store()
    with running(OURS, stores.holding(USERS)) as process:
        for times, in_flight in ((1, 200), (3, 600), (10, 2000)):
            found, usage = closed(process, "get", in_flight, "--users", USERS, "--tolerant")
            yield row(f"GetUser, closed loop, {in_flight:,} in flight ({times}x)", found, usage,
                      f"{others(found)}; RSS {rss_kib(process.pid) / 1024:.1f} MiB")


def slow_store():
    """Where the store is the bottleneck, and not the CPU that one core has for both calls and store."""
    with postgres.database() as database, running(ON_POSTGRES, database.port) as process:
        stores.bring(process, USERS)
        for statement in postgres.SLOW_COMMITS:
            database.sql(statement)
        yield from open_loop(process, "create", "CreateUser, 20 ms a commit")
        database.sql(postgres.SLOW_READS)
        yield from open_loop(process, "get", "GetUser, 50 ms a statement", "--users", USERS)
        yield from open_loop(process, "page", "ListUsers of 1,000, 25 ms a statement", "--users", USERS, in_flight=LARGER_READS)


def slow_commits():
    """Commits that wait for a slow disk, and offered so many times what it can take: what is
    answered in time, what is stored for callers who were told something else, and for how
    long those that were answered waited."""
    for store, opened in (("SQLite", sqlite_with_slow_syncs), ("PostgreSQL", postgres_with_slow_commits)):
        for commit in (0.02, 0.1, 0.5):
            could_be = MOST_IN_A_COMMIT / commit
            with opened(commit) as (process, stored):
                first = 10**7
                # The forecast knows the disk before the first run.
                closed(process, "create", 64, "--first", first, "--tolerant")
                # At the end whether it recovers: two seconds, and then as at first.
                for times, seconds, name in [(n, max(SECONDS, 20 * commit), n) for n in (1, 2, 3, 10)] + [
                        (1, 1, None), (1, max(SECONDS, 20 * commit), "after")]:
                    # One core for the load offers no more.
                    if times * could_be > MOST_OFFERED:
                        continue
                    first += 10**7
                    before = stored()
                    found = load(process, "open", "--kind", "create", "--first", first, "--rate", could_be * times,
                                 "--warm-up", int(name is not None), "--seconds", seconds)
                    if name is None:
                        continue
                    time.sleep(4 * commit)
                    rows = max(stored() - before, 1)
                    answered = (found["calls"] - found["outside"]) / found["seconds"] / could_be
                    late, waited = (rows - found["calls"]) / rows, found["p99_us"] / 1e6
                    KEPT["slow_commits"][f"{store}, {commit * 1e3:g} ms"][name] = {
                        "answered": answered, "late": late, "p99": waited, "bound": 2 * commit + 0.05}
                    yield [f"CreateUser, {store}, {commit * 1e3:g} ms a commit, {name if name == 'after' else f'{times}x'} of "
                           f"{could_be:,.0f} a second", f"{found['calls'] / found['seconds']:,.0f}", f"{found['p50_us']:,}",
                           f"{found['p99_us']:,}", "", f"{answered:.2f} of what could be; {late:.1%} of {rows:,} stored were "
                           f"not told OK; {others(found)}"]


@contextmanager
def sqlite_with_slow_syncs(commit):
    store = fresh()
    # Only the two calls stop for strace, which is not the parent of what it traces.
    delay = ("strace", "-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e",
             f"inject=fsync,fdatasync:delay_exit={commit * 1e6:.0f}")
    with running(OURS, store, wrapper=delay) as process, \
            closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
        yield process, lambda: connection.execute("SELECT count(*) FROM users").fetchone()[0]


@contextmanager
def postgres_with_slow_commits(commit):
    with postgres.database() as database, running(ON_POSTGRES, database.port) as process:
        for statement in postgres.slow_commits(commit):
            database.sql(statement)
        yield process, lambda: int(database.sql("SELECT count(*) FROM user_service.users"))


def open_loop(process, kind, what, *options, in_flight=IN_FLIGHT, client=load):
    """Arrivals at so many times of what was the most that it could do. Larger reads are few, and so were
    their connections; the others were on as many."""
    found, _ = closed(process, kind, in_flight, "--first", 10**7, "--tolerant", *options, connections=min(in_flight, CONNECTIONS))
    peak = found["calls"] / found["seconds"]
    first, unloaded = 10**8, None
    for times in (0.25, 1, 2, 3):
        with Usage(process.pid) as usage:
            found = client(process, "open", "--kind", kind, "--first", first, "--rate", peak * times, "--warm-up", 1,
                           "--seconds", SECONDS, *options)
        first += 10**8
        unloaded = unloaded or max(found["p99_us"], 1)
        goodput = (found["calls"] - found["outside"]) / found["seconds"]
        if times >= 1:
            KEPT["overload"][what][times] = {"goodput": goodput / peak, "p99": found["p99_us"] / unloaded}
        yield row(f"{what}, open loop, {times:g}x of {peak:,.0f} a second", found, usage,
                  f"goodput {goodput / peak:.2f} of the peak, p99 {found['p99_us'] / unloaded:.1f} x unloaded; "
                  f"{others(found)}; load {usage.client / usage.seconds:.0%} busy")
    return peak


def go_load(process, *arguments):
    """The same calls as `article-create`, by a stock client."""
    return json.loads(machine.on_client_core([BIN / "go-load", f"127.0.0.1:{process.port}", *arguments]))


def on_postgres():
    """The service on PostgreSQL, and pgbench with as many clients as calls are in
    flight, by turns. The kernel places them all: three programs, two cores."""
    with postgres.database() as database, running(ON_POSTGRES, database.port, core=None) as process:
        stores.bring(process, USERS)
        database.sql(postgres.BARE)
        database.sql("VACUUM ANALYZE")
        size = "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' " \
               "AND relnamespace = 'user_service'::regnamespace"
        yield ["PostgreSQL, disk a user", "", "", "", "", f"{float(database.sql(size)) / USERS:,.0f} bytes"]
        load(process, "closed", "--kind", "get", "--users", USERS, "--seconds", SECONDS)
        first = USERS
        for clients in (16, 64):
            for kind, script in (("get", postgres.READ.format(users=USERS)), ("create", postgres.INSERT)):
                bare, ours = [], []
                for _ in range(ROUNDS):
                    bare.append(database.pgbench(script, clients, int(SECONDS)))
                    options = ["--users", USERS] if kind == "get" else ["--first", first]
                    found, usage = closed(process, kind, clients, *options)
                    first += 10**7
                    ours.append((found["calls"] / found["seconds"], found, usage))
                rate, found, usage = sorted(ours, key=lambda run: run[0])[ROUNDS // 2]
                middle = statistics.median(bare)
                name = "GetUser" if kind == "get" else "CreateUser"
                KEPT["postgres"][name][clients] = {"ours": rate, "pgbench": middle}
                ratios = [run[0] / other for run, other in zip(ours, bare)]
                yield row(f"PostgreSQL: {name}, {clients} in flight", found,
                          usage, f"{rate / middle:.2f} x pgbench's {middle:,.0f} a second with {clients} clients "
                          f"({min(ratios):.2f} to {max(ratios):.2f})")


def imports():
    """Users by `user-service import`, and their rows by whatever else can load them."""
    lines = machine.scratch(on_disk=True) / "users.jsonl"
    with lines.open("w") as file:
        file.writelines(map(stores.line, range(IMPORT_USERS)))
    bare = disk("sqlite", "--batch", MOST_IN_A_COMMIT)
    with running(OURS, fresh()) as process:
        yield imported("SQLite", process, lines, {"bare SQLite": bare})
    with postgres.database() as database:
        # What the rig asks first is a user too; it is a row of the loads like all others.
        with running(ON_POSTGRES, database.port, core=None) as process:
            done = imported("PostgreSQL", process, lines, {})
        inserts, copies = postgres.bare_loads(database, MOST_IN_A_COMMIT)
        rates = {name: IMPORT_USERS / database.load(file)
                 for name, file in (("multi-row INSERT", inserts), ("COPY", copies))}
        done[-1] = beside(float(done[1].replace(",", "")), rates) + done[-1]
        yield done


def imported(store, process, lines, rates):
    with Usage(process.pid) as usage:
        said = subprocess.run([machine.OURS, "import", "--server", f"127.0.0.1:{process.port}", lines],
                              capture_output=True, text=True, check=True).stderr
    if said != f"import: {IMPORT_USERS} created, 0 unchanged, 0 refused\n":
        raise RuntimeError(said)
    rate = IMPORT_USERS / usage.seconds
    return [f"users by ImportUsers, {IMPORT_USERS:,}, {store}", f"{rate:,.0f}", "", "",
            f"{usage.server * 1e6 / IMPORT_USERS:.2f}",
            f"{beside(rate, rates)}RSS {rss_kib(process.pid) / 1024:.1f} MiB"]


def beside(rate, rates):
    return "".join(f"{rate / other:.2f} x {name}'s {other:,.0f}, " for name, other in rates.items())


def protocols():
    """A GetUser by each protocol, of servers that speak more than one, and of grpc-go."""
    spoken = [(name, protocol) for name in (OURS_ALL, CONNECT_RUST, CONNECT_GO) for protocol in CONTENT_TYPES]
    for name, protocol, found in by_turns([*spoken, (GO, GRPC)]):
        KEPT["protocols"][protocol][name] = found[1]
        yield row_by_turns(f"GetUser by {protocol}: {name}", *found)


def access():
    """A GetUser by gRPC where callers have to show who they are, and where bytes are encrypted."""
    names = (OURS_ALL, "ours-token", "ours-tls", "ours-tls-token", "ours-mtls", GO, "grpc-go-tls")
    for name, _, found in by_turns([(name, GRPC) for name in names]):
        KEPT["access"]["cpu_us"][name] = found[1]
        yield row_by_turns(f"GetUser: {name}", *found)


def by_turns(runs):
    """Measures a GetUser at 10 x 20 for each server and protocol. Each round begins with
    another one. Yields the medians of calls a second and of CPU, and how far rounds differ."""
    results = Results()
    for turn in range(ROUNDS):
        for name, protocol in runs[turn % len(runs):] + runs[:turn % len(runs)]:
            with running(SERVERS[name], stores.holding(USERS)) as process:
                process.speak(protocol)
                found = same_key(process, "10 x 20", SECONDS, 0)
                results.add((name, protocol), rate=found["rate"], cpu_us=found["cpu_us"])
    for run in runs:
        yield *run, (results.median(run, "rate"), results.median(run, "cpu_us"), results.figure(run, "cpu_us", 2))


def row_by_turns(what, rate, _, cpu_us):
    return [what, f"{rate:,.0f}", "", "", cpu_us, ""]


def others(found):
    """How many calls did not end with OK."""
    kinds = [f"{count:,} of status {code}" for code, count in found["others"].items()]
    if found["unanswered"]:
        kinds.append(f"{found['unanswered']:,} unanswered")
    return ", ".join(kinds) or "all OK"


PARTS = {"creates": creates, "batch": batch, "list": listing, "start": start, "gets": gets, "overload": overload,
         "slow_commits": slow_commits, "postgres": on_postgres, "imports": imports, "protocols": protocols,
         "access": access}


def main():
    names = sys.argv[1:] or list(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        sys.exit(f"unknown: {', '.join(unknown)}; there are: {', '.join(PARTS)}")
    rows = []
    for name in names:
        rows += PARTS[name]()
        if name in KEPT:
            figures.keep(figures.LATEST, name, KEPT[name])
        machine.say(name)
    print(markdown(HEAD, rows))


if __name__ == "__main__":
    main()
