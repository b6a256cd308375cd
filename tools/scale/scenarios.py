"""What is simulated for docs/SCALE.md: points that were measured, and predictions."""

from functools import partial

from model import Fifo, Forecasting, simulate

# Of docs/PERFORMANCE.md. SQLite on one core: a commit, and a create with its call. Both
# follow from creates with 1 and 256 in flight.
SQLITE_FLUSH, SQLITE_ROW = 535e-6, 30e-6
# PostgreSQL, the service and the load on two cores: a batch, a create with its call, and
# an imported row. They follow from creates with 16 and 64 in flight, and from an import.
SHARED_BATCH, SHARED_CALL, ROW = 1.14e-3, 87e-6, 16.6e-6

# A database on its own machine, in the same zone. Assumed, not measured.
STATEMENTS, ROUND_TRIP = 0.3e-3, 0.5e-3
FLUSHES = {"local disk, 0.2 ms": 0.2e-3, "network volume, 1 ms": 1e-3, "synchronous standby in another zone, 3 ms": 3e-3,
           "standby in another region, 30 ms": 30e-3}
NEARBY = {"row": ROW, "statements": STATEMENTS, "round_trip": ROUND_TRIP}

# The requirements on the design.
READS, WRITES, USERS = 100_000, 10_000, 100_000_000


def per_second(value):
    return f"{value:,.0f}"


def millis(value):
    return f"{value * 1e3:,.{0 if value >= 0.01 else 1}f} ms"


def overload():
    """The queue before and after it was bounded by time."""
    slow = partial(simulate, even=True, row=SQLITE_ROW)
    rows = []
    for store, commit, rate, measured in (
            ("SQLite, 500 ms a commit", 0.5, 300, "218 and 206/s, p50 759 ms, all stored"),
            ("SQLite, 500 ms a commit", 0.5, 1000, "24, 0 and 0/s, 3,470 stored, all late"),
            ("SQLite, 500 ms a commit", 0.5, 1500, "24/s"),
            ("SQLite, 200 ms a commit, clients short of CPU", 0.2, 3000, "304/s"),
            ("SQLite, 100 ms a commit", 0.1, 7500, "2,151/s, p99 869 ms"),
            ("PostgreSQL, 500 ms a commit", 0.5, 300, "190/s, all stored"),
            ("PostgreSQL, 500 ms a commit", 0.5, 1000, "6/s, 3,141 stored, 60 of them answered")):
        more = {"statements": SHARED_BATCH, "round_trip": ROUND_TRIP} if store.startswith("PostgreSQL") else {}
        before = slow(queue=Fifo, rate=rate, flush=commit, **more)
        now = slow(queue=partial(Forecasting, commit), rate=rate, flush=commit, **more)
        rows.append([store, per_second(rate), measured, ended(before), ended(now)])
    return ["store", "offered a second", "measured, bounded by number", "simulated, bounded by number",
            "simulated, bounded by time"], rows


def ended(found):
    return (f"{found.goodput:,.0f}/s, p50 {millis(found.wait(0.5))}, p99 {millis(found.wait(0.99))}, "
            f"{found.stored:,} stored, {found.late_share:.0%} late")


def closed_loops():
    """Durable creates with so many in flight."""
    rows = []
    for store, in_flight, measured, kind, costs in (
            ("SQLite", 1, 1_770, "fitted", {"flush": SQLITE_FLUSH, "row": SQLITE_ROW}),
            ("SQLite", 16, 12_616, "predicted", {"flush": SQLITE_FLUSH, "row": SQLITE_ROW}),
            ("SQLite", 256, 31_434, "fitted", {"flush": SQLITE_FLUSH, "row": SQLITE_ROW}),
            ("SQLite", 1_024, 24_910, "predicted", {"flush": SQLITE_FLUSH, "row": SQLITE_ROW}),
            ("PostgreSQL", 16, 6_328, "fitted", {"flush": SHARED_BATCH, "row": SHARED_CALL}),
            ("PostgreSQL", 64, 9_539, "fitted", {"flush": SHARED_BATCH, "row": SHARED_CALL}),
            ("PostgreSQL, an import", 512, 47_595, "fitted", {"flush": SHARED_BATCH, "row": ROW})):
        found = simulate(queue=Forecasting, in_flight=in_flight, seconds=1, **costs)
        rows.append([store, per_second(in_flight), per_second(measured), per_second(found.goodput),
                     f"{found.goodput / measured:.2f}", kind])
    return ["store", "in flight", "measured a second", "simulated", "ratio", "the point is"], rows


def replicas():
    """All writes of the design's goal, by so many replicas of one counter's row."""
    rows = []
    for disk, flush in list(FLUSHES.items())[:3]:
        for count in (3, 6, 12, 24):
            found = simulate(queue=partial(Forecasting, flush), rate=WRITES, replicas=count, seconds=1, flush=flush, **NEARBY)
            rows.append([disk, count, f"{len(found.waits) / found.offered:.1%}", millis(found.wait(0.5)), millis(found.wait(0.99)),
                         f"{found.stored / found.batches:.0f}"])
    return ["flush", "replicas", "answered of 10,000 a second", "p50", "p99", "writes a commit"], rows


def counter_row():
    """Where the one row ends."""
    rows = []
    for disk, flush in FLUSHES.items():
        arithmetic = 256 / (STATEMENTS + flush + 256 * ROW)
        found = simulate(queue=partial(Forecasting, flush), rate=arithmetic * 1.5, replicas=6, seconds=1, flush=flush, **NEARBY)
        rows.append([disk, per_second(arithmetic), per_second(found.goodput), millis(found.wait(0.99))])
    return ["flush", "256 / (statements + flush + 256 rows)", "simulated, offered 1.5x", "p99"], rows


def lanes():
    """A counter's row for each lane; commits that wait for a flush share it."""
    rows = []
    for disk, flush in list(FLUSHES.items())[1:]:
        for count in (1, 2, 4, 8):
            cells = []
            for cores in (2, 8):
                limit = min(count * 256 / (STATEMENTS + flush + 256 * ROW), cores / ROW)
                found = simulate(queue=partial(Forecasting, flush), rate=limit * 1.2, replicas=3, lanes=count, seconds=max(0.2, 20 * flush),
                                 cores=cores, flush=flush, **NEARBY)
                # The first batches are small, and so the run's second half counts.
                cells.append(per_second(found.steady))
            rows.append([disk, count, *cells])
    return ["flush", "lanes", "writes a second, 2 cores for rows", "8 cores"], rows


TABLES = {table.__name__: table for table in (overload, closed_loops, replicas, counter_row, lanes)}


def figures():
    """What benches/plot.py draws."""
    offered = list(range(100, 2001, 100))
    slow = partial(simulate, even=True, row=SQLITE_ROW, flush=0.5)
    ends = [lanes * 256 for lanes in (1, 2, 4, 8)]
    flushes = [0.2e-3 * 1.5**n for n in range(15)]
    return {"overload": {"offered": offered,
                         "bounded by number": [slow(queue=Fifo, rate=rate).goodput for rate in offered],
                         "bounded by time": [slow(queue=partial(Forecasting, 0.5), rate=rate).goodput for rate in offered]},
            "lanes": {"flush_ms": [flush * 1e3 for flush in flushes],
                      **{str(end // 256): [end / (STATEMENTS + flush + 256 * ROW) for flush in flushes] for end in ends}}}
