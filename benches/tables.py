#!/usr/bin/env python3
"""Writes the tables of docs/PERFORMANCE.md that are made of recorded figures; with
--check it writes nothing, and fails where a table is stale."""

import sys

from rig import figures
from rig.figures import RECORDED, markdown, replaced

DOCUMENT = figures.ROOT / "docs" / "PERFORMANCE.md"
OURS, QUIET, HYPER, TONIC = "ours", "ours-quiet", "raw-hyper", "tonic"
LOADS = ["10 x 20", "50 x 1", "1 x 1", "1 x 100", "random keys, 10 x 20"]
# CPU of ours over the other's, at most: at 10 x 20 and at 50 x 1.
RATIO_GOALS = {
    HYPER: (1.30, 1.20), TONIC: (0.50, 0.75), "tonic-usual": (0.23, 0.35), "grpc-go": (0.40, 0.52),
    "grpc-go-middleware": (0.17, 0.28), "python": (0.03, 0.06), QUIET: (1.15, 1.15),
}
# At 1, 2, 3 and 10 times what the disk can take.
ANSWERED_GOALS = {"1": 0.9, "2": 0.85, "3": 0.85, "10": 0.8, "after": 0.95}
# CPU of ours over the other's, at most.
PROTOCOL_GOALS = {"connectrpc": 0.6, "connect-go": 0.3, "grpc-go": 0.4}
# CPU over that without TLS and token, at most.
ACCESS_GOALS = {"ours-token": 1.05, "ours-tls": 1.25}
POSTGRES_GOALS = {"GetUser": 0.7, "CreateUser": 1.0}


def peers(found):
    rows = []
    for name in found["idle"]:
        of = {load: found[load][name] for load in found}
        cpu = [f"{of[load]['cpu_us']:.{1 if load == '1 x 1' else 2}f}" for load in LOADS]
        rows.append([name, *cpu, f"{of['1 x 1']['p50']:.0f}", f"{of['idle']['rss']:.1f}, {of['10 x 20']['rss']:.1f}",
                     f"{of['idle']['idle_bytes']:,.0f}"])
    return ["server", *LOADS[:-1], "random keys", "p50 us, 1 x 1", "MiB idle, 10 x 20", "bytes an idle connection"], rows


def ratios(found):
    rows = []
    for name, goals in RATIO_GOALS.items():
        if name not in found["idle"]:
            continue
        row = ["to itself without metrics, traces and call log" if name == QUIET else f"to {name}"]
        for load, goal in zip(LOADS, goals):
            ratio = found[load][OURS]["cpu_us"] / found[load][name]["cpu_us"]
            shown = f"{ratio:.3f}" if ratio < 0.1 else f"{ratio:.2f}"
            row += [shown, f"{goal:.2f}" + (", not reached" if float(shown) > goal else "")]
        rows.append(row)
    return ["CPU of ours, as a ratio", LOADS[0], "goal", LOADS[1], "goal"], rows


def creates(found):
    rows = [[f"{int(in_flight):,}", f"{of['ours']:,.0f}", f"{of['bare_sqlite']:,.0f}", f"{of['ours'] / of['bare_sqlite']:.2f}",
             f"{of['ours'] / of['fdatasync']:.2f}"] for in_flight, of in found.items()]
    return ["in flight", "CreateUser", "bare SQLite", "ratio", "x fdatasync"], rows


def overload(found):
    rows = [[calls, ", ".join(f"{run['goodput']:.2f}" for run in of.values()),
             ", ".join(f"{run['p99']:.{1 if run['p99'] < 10 else 0}f}" for run in of.values())] for calls, of in found.items()]
    return ["calls", "goodput at 1x, 2x, 3x", "p99, x unloaded"], rows


def slow_commits(found):
    rows = []
    for store, of in found.items():
        row = [store]
        for times, goal in ANSWERED_GOALS.items():
            if times not in of:
                row.append("-")
                continue
            answered = f"{of[times]['answered']:.2f}"
            row.append(answered + ("" if float(answered) >= goal else ", not reached"))
        row.append(f"{max(run['late'] for run in of.values()):.1%}")
        row.append(f"{of['3']['p99'] * 1e3:,.0f} ms of {of['3']['bound'] * 1e3:,.0f}" if "3" in of else "-")
        rows.append(row)
    return ["commits", *(times if times == "after" else f"{times}x" for times in ANSWERED_GOALS), "stored and not told OK, at worst",
            "p99 at 3x, and its goal"], rows


def postgres(found):
    rows = []
    for calls, by_clients in found.items():
        for clients, of in by_clients.items():
            ratio = of["ours"] / of["pgbench"]
            missed = ", not reached" if round(ratio, 2) < POSTGRES_GOALS[calls] else ""
            rows.append([calls, clients, f"{of['ours']:,.0f}", f"{of['pgbench']:,.0f}", f"{ratio:.2f}{missed}"])
    return ["calls", "in flight", "ours", "pgbench", "ratio"], rows


def protocols(found):
    rows = []
    for protocol, of in found.items():
        row = [protocol, f"{of[OURS]:.2f}"]
        for name, goal in PROTOCOL_GOALS.items():
            ratio = f"{of[OURS] / of[name]:.2f}" if name in of else "-"
            missed = name in of and protocol != "gRPC" and float(ratio) > goal
            row += [f"{of[name]:.2f}" if name in of else "-", ratio + (", not reached" if missed else "")]
        rows.append(row)
    return ["a GetUser by", "ours, us of CPU", *(head for name in PROTOCOL_GOALS for head in (name, "ratio"))], rows


def access(found):
    of = found["cpu_us"]
    rows = []
    for name, cpu in of.items():
        plain = of["grpc-go" if name.startswith("grpc-go") else OURS]
        ratio, goal = f"{cpu / plain:.2f}", ACCESS_GOALS.get(name)
        missed = goal is not None and float(ratio) > goal
        rows.append([name, f"{cpu:.2f}", "1" if cpu == plain else ratio, "" if goal is None else f"{goal:.2f}" + ", not reached" * missed])
    return ["server", "us of CPU a GetUser", "x plain", "goal"], rows


def instructions(found):
    counts = found["per_call"]
    # A ratio to itself is 1, without digits.
    over = [lambda name, other=other: "1" if name == other else f"{counts[name] / counts[other]:.2f}" for other in (HYPER, TONIC)]
    return (["server", "instructions a call", "x raw-hyper", "x tonic"],
            [[name, f"{count:,}", *(of(name) for of in over)] for name, count in counts.items()])


# What each table is made of, and how.
TABLES = {"peers": ("peers", peers), "ratios": ("peers", ratios), "creates": ("creates", creates),
          "overload": ("overload", overload), "slow_commits": ("slow_commits", slow_commits), "postgres": ("postgres", postgres),
          "protocols": ("protocols", protocols), "access": ("access", access),
          "instructions": ("instructions", instructions)}


def written(text):
    """The document with every table as recorded."""
    for name, (source, table) in TABLES.items():
        if not figures.path(RECORDED, source).exists():
            # A table that was never recorded has no place yet.
            continue
        text = replaced(text, name, markdown(*table(figures.read(RECORDED, source))))
    return text


def main():
    text = DOCUMENT.read_text()
    if "--check" not in sys.argv[1:]:
        DOCUMENT.write_text(written(text))
    elif written(text) != text:
        sys.exit(f"{DOCUMENT.name} differs from benches/figures: run benches/tables.py")


if __name__ == "__main__":
    main()
