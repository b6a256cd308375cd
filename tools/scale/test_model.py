#!/usr/bin/env python3
"""The model against arithmetic that needs none, and against the code that it follows.
The last line has the form of cargo's, so that tools/tally.py counts these tests."""

import re
import sys
import time
import unittest
from pathlib import Path

from model import Fifo, Forecasting, simulate

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tools"))

from tally import summary  # noqa: E402

STORE = ROOT / "src" / "store"


class Model(unittest.TestCase):
    def test_a_closed_loop_is_answered_once_a_commit(self):
        found = simulate(queue=Forecasting, in_flight=1, seconds=2, flush=0.010, row=0.0)
        self.assertAlmostEqual(found.goodput, 100, delta=1)

    def test_a_full_batch_takes_its_flush_and_its_rows(self):
        found = simulate(queue=Forecasting, in_flight=256, seconds=2, flush=0.010, row=50e-6)
        self.assertAlmostEqual(found.goodput, 256 / (0.010 + 256 * 50e-6), delta=150)

    def test_calls_below_the_capacity_wait_for_one_commit_and_a_half(self):
        found = simulate(queue=Forecasting, rate=300, even=True, flush=0.100, row=0.0)
        self.assertEqual(found.refused, 0)
        # Evenly spread over a commit and a linger, and then its own commit.
        self.assertAlmostEqual(sum(found.waits) / len(found.waits), 0.100 + 0.110 / 2, delta=0.005)

    def test_a_queue_bounded_by_number_stores_for_callers_who_have_gone(self):
        found = simulate(queue=Fifo, rate=1000, even=True, flush=0.500, row=0.0)
        self.assertLess(found.goodput, 60)
        self.assertGreater(found.late_share, 0.9)

    def test_a_queue_bounded_by_time_stores_for_callers_who_are_answered(self):
        # The batch that one commit takes: 256, or half of the 1,024 permits where commits are slow.
        for commit, times, batch in ((0.02, 3, 256), (0.1, 3, 256), (0.5, 2, 512), (0.5, 10, 512)):
            found = simulate(queue=lambda commit=commit: Forecasting(commit), rate=batch / commit * times, even=True,
                             seconds=16 * commit, flush=commit, row=0.0)
            with self.subTest(commit=commit, times=times):
                # A batch of which no write has time is committed, and tells what commits take now.
                self.assertLess(found.late_share, 0.02)
                # The first commit holds one call, and the last one ends after the run.
                self.assertAlmostEqual(found.goodput * commit / batch, 14 / 16, delta=0.1)

    def test_after_its_first_commit_a_slow_disk_is_known(self):
        cold, warm = (simulate(queue=queue, rate=500, even=True, seconds=5, flush=0.5, row=0.0).goodput
                      for queue in (Forecasting, lambda: Forecasting(0.5)))
        self.assertGreater(cold / warm, 0.97)

    def test_every_call_has_one_end(self):
        for queue in (Fifo, Forecasting):
            found = simulate(queue=queue, rate=3000, seconds=2, flush=0.200, row=20e-6)
            self.assertEqual(found.offered, found.refused + found.dropped + found.stored)
            self.assertEqual(found.stored, found.late + len(found.waits))

    def test_replicas_share_what_one_row_allows(self):
        cycle = {"flush": 0.002, "row": 16e-6}
        for replicas in (1, 4, 16):
            found = simulate(queue=Forecasting, rate=50_000, replicas=replicas, seconds=1, **cycle)
            with self.subTest(replicas=replicas):
                self.assertAlmostEqual(found.goodput / (256 / (0.002 + 256 * 16e-6)), 1, delta=0.1)

    def test_lanes_multiply_what_flushes_allow_and_not_what_cores_do(self):
        lock = {"queue": Forecasting, "rate": 100_000, "seconds": 0.3, "flush": 0.010, "row": 10e-6}
        one = simulate(lanes=1, **lock).steady
        self.assertAlmostEqual(simulate(lanes=4, **lock).steady / one, 4, delta=0.3)
        self.assertLess(simulate(lanes=8, cores=1, **lock).goodput, 1 / lock["row"])

    def test_the_same_seed_gives_the_same_result(self):
        runs = [simulate(queue=Forecasting, rate=5000, seconds=1, flush=0.02, row=0.0, seed=seed) for seed in (7, 7, 8)]
        self.assertEqual(runs[0], runs[1])
        self.assertNotEqual(runs[0], runs[2])

    def test_the_constants_are_those_of_the_code(self):
        code = (STORE / "forecast.rs").read_text() + (STORE / "linger.rs").read_text()
        number = lambda name: int(re.search(rf"const {name}: \w+ = (?:Duration::from_\w+\()?([\d_]+)", code)[1])
        self.assertEqual(
            [number(name) for name in ("MIN_BATCH_LIMIT", "MAX_BATCH_LIMIT", "QUICK_COMMIT", "QUEUE_SLACK", "ANSWER", "ANSWER_SLACK",
                                       "MAX_WAIT", "DELAY_DIVISOR")],
            [Forecasting.MIN_BATCH, Forecasting.MAX_BATCH, Forecasting.QUICK_COMMIT * 1e3, Forecasting.QUEUE_SLACK * 1e3,
             Forecasting.ANSWER * 1e6, Forecasting.ANSWER_SLACK * 1e3, Forecasting.MAX_LINGER * 1e3, 4])


if __name__ == "__main__":
    began = time.monotonic()
    result = unittest.main(exit=False).result
    failed = len(result.failures) + len(result.errors)
    summary(max(result.testsRun - failed, 0), failed, began)
    sys.exit(failed > 0)
