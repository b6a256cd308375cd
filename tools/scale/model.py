"""A discrete-event simulation of writes: callers, the queue of each replica, its writer,
and a database with a row for the revision counter of each lane.

Times are seconds. The same seed gives the same result."""

import random
from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush

INFINITE = float("inf")


class Events:
    """What happens, in the order of its time."""

    def __init__(self):
        self.now, self._heap, self._number = 0.0, [], 0

    def at(self, time, action):
        self._number += 1
        heappush(self._heap, (time, self._number, action))

    def run(self):
        while self._heap:
            self.now, _, action = heappop(self._heap)
            action()


class Call:
    __slots__ = ("answered", "arrival", "deadline", "ended")

    def __init__(self, arrival, timeout, answered=None):
        self.arrival, self.deadline, self.answered, self.ended = arrival, arrival + timeout, answered, False


class Fifo:
    """A queue that is bounded by number alone, and a batch of fixed size. A write whose
    deadline has passed when its batch begins fills a place in the batch and is not made."""

    MAX_LINGER = INFINITE
    BATCH = 256

    def __init__(self, limit=1024):
        self.limit, self.calls = limit, deque()

    def __len__(self):
        return len(self.calls)

    def push(self, call, _now):
        if len(self.calls) >= self.limit:
            return False
        self.calls.append(call)
        return True

    def take(self, now):
        """The writes of the next batch, and how many are dropped."""
        batch = [self.calls.popleft() for _ in range(min(len(self.calls), self.BATCH))]
        live = [call for call in batch if call.deadline > now]
        return live, len(batch) - len(live)

    def batch_limit(self):
        return self.BATCH

    def begin(self, writes, now):
        pass

    def end(self, now):
        pass


class Forecasting:
    """The queue of src/store/queue.rs, which src/store/forecast.rs bounds by time."""

    MAX_LINGER = 0.010
    MIN_BATCH, MAX_BATCH, QUICK_COMMIT = 256, 2048, 0.100
    QUEUE_SLACK, ANSWER, ANSWER_SLACK = 0.100, 10e-6, 0.005

    def __init__(self, commit=0.0, limit=1024):
        """`commit` is what commits took before the run."""
        self.limit, self.calls = limit, deque()
        self.commit, self.deviation = commit, 0.0
        self.began, self.batch = None, 0

    def __len__(self):
        return len(self.calls)

    def push(self, call, now):
        if len(self.calls) >= self.limit or not self._admits(call.deadline - now, now):
            return False
        self.calls.append(call)
        return True

    def _admits(self, left, now):
        if not self.calls and self.began is None:
            return True
        batches = len(self.calls) // self.batch_limit()
        busy = 0.0 if self.began is None else max(self.began + self.commit - now, 0.0)
        in_time = left >= busy + self._next_commit(now) * batches + self._bound(now)
        return in_time and self.commit * batches <= self.QUEUE_SLACK

    def take(self, now):
        in_time = [call for call in self.calls if call.deadline - now > self._bound(now)]
        dropped = len(self.calls) - len(in_time)
        if in_time and dropped:
            self.calls = deque(in_time)
        else:
            dropped = 0
        return [self.calls.popleft() for _ in range(min(len(self.calls), self.batch_limit()))], dropped

    def batch_limit(self):
        grown = int(self.MIN_BATCH * self.commit / self.QUICK_COMMIT)
        return min(max(grown, self.MIN_BATCH), self.MAX_BATCH)

    def begin(self, writes, now):
        self.began, self.batch = now, writes

    def end(self, now):
        took, self.began = now - self.began, None
        if not self.commit:
            self.commit = took
            return
        self.deviation = (self.deviation * 3 + abs(took - self.commit)) / 4
        self.commit = (self.commit + took) / 2

    def _next_commit(self, now):
        return self.commit if self.began is None else max(self.commit, now - self.began)

    def _bound(self, now):
        return self._next_commit(now) + self.deviation * 2 + self.ANSWER * self.batch + self.ANSWER_SLACK


class Database:
    """Commits batches. A batch holds its lane's row from the increment of the counter to
    the end of the flush, and needs a core for its rows. SQLite is one lane without a
    round trip."""

    def __init__(self, events, *, flush, row, statements=0.0, round_trip=0.0, lanes=1, cores=INFINITE):
        self.events, self.flush, self.row, self.statements = events, flush, row, statements
        self.round_trip, self.cores = round_trip, cores
        self.busy = 0
        self.waiting_for_core = deque()
        self.lanes = [deque() for _ in range(lanes)]

    def commit(self, lane, size, done):
        """Reads what the batch needs in one round trip, and writes it in another."""
        self.events.at(self.events.now + self.round_trip * 1.5, lambda: self._lock(lane, size, done))

    def _lock(self, lane, size, done):
        self.lanes[lane].append((size, done))
        if len(self.lanes[lane]) == 1:
            self._write(lane)

    def _write(self, lane):
        if self.busy >= self.cores:
            self.waiting_for_core.append(lane)
            return
        self.busy += 1
        size, _ = self.lanes[lane][0]
        self.events.at(self.events.now + self.statements + self.row * size, lambda: self._sync(lane))

    def _sync(self, lane):
        self.busy -= 1
        if self.waiting_for_core:
            self._write(self.waiting_for_core.popleft())
        self.events.at(self.events.now + self.flush, lambda: self._unlock(lane))

    def _unlock(self, lane):
        _, done = self.lanes[lane].popleft()
        if self.lanes[lane]:
            self._write(lane)
        self.events.at(self.events.now + self.round_trip / 2, done)


@dataclass
class Outcome:
    seconds: float
    offered: int = 0
    refused: int = 0
    dropped: int = 0
    stored: int = 0
    late: int = 0
    in_run: int = 0
    in_second_half: int = 0
    batches: int = 0
    waits: list = field(default_factory=list)

    @property
    def steady(self):
        """The same in the second half of the run."""
        return self.in_second_half * 2 / self.seconds

    @property
    def goodput(self):
        """Calls a second that were answered with OK while calls still arrived."""
        return self.in_run / self.seconds

    def wait(self, share):
        """How long so many of the answered calls waited at most."""
        ordered = sorted(self.waits)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0

    @property
    def late_share(self):
        """The share of stored writes whose caller was not told OK."""
        return self.late / self.stored if self.stored else 0.0


class Writer:
    """The one writer of a replica, or of one of its lanes: it lingers for the callers that
    it has just answered, takes a batch, commits it, and answers."""

    def __init__(self, events, queue, database, outcome, lane=0):
        self.events, self.queue, self.database, self.outcome, self.lane = events, queue, database, outcome, lane
        self.busy, self.target, self.until, self.under_way = False, 0, 0.0, 0

    def push(self, call):
        self.outcome.offered += 1
        if self.under_way >= self.queue.limit or not self.queue.push(call, self.events.now):
            self.outcome.refused += 1
            return False
        self.under_way += 1
        self.events.at(call.deadline, lambda: self._release(call))
        if not self.busy:
            self._linger()
        return True

    def _release(self, call):
        """A call gives its permit back with its answer, or at its deadline."""
        self.under_way -= not call.ended
        call.ended = True

    def _linger(self):
        """Begins a batch if enough calls wait, and otherwise at the end of the linger."""
        if self.busy or not len(self.queue):
            return
        if len(self.queue) >= self.target or self.events.now >= self.until:
            self._begin()
        else:
            self.events.at(self.until, self._linger)

    def _begin(self):
        now = self.events.now
        self.busy = True
        batch, dropped = self.queue.take(now)
        self.outcome.dropped += dropped
        self.queue.begin(len(batch), now)
        if batch:
            self.outcome.batches += 1
            self.database.commit(self.lane, len(batch), lambda: self._end(batch, now))
        else:
            self._end(batch, now)

    def _end(self, batch, began):
        now, outcome = self.events.now, self.outcome
        self.queue.end(now)
        outcome.stored += len(batch)
        for call in batch:
            if now > call.deadline:
                outcome.late += 1
            else:
                outcome.waits.append(now - call.arrival)
                outcome.in_run += now <= outcome.seconds
                outcome.in_second_half += outcome.seconds / 2 < now <= outcome.seconds
            self._release(call)
            if call.answered:
                self.events.at(now, call.answered)
        self.busy = False
        self.target = min(len(batch) + len(self.queue), self.queue.batch_limit())
        self.until = now + min((now - began) / 4, self.queue.MAX_LINGER)
        # As an event, because a queue of dropped writes would end in a deep recursion.
        self.events.at(now, self._linger)


def simulate(*, queue, rate=None, in_flight=None, replicas=1, seconds=10.0, timeout=1.0, even=False, seed=1, **database):
    """Callers at a rate, or so many that call again when they are answered."""
    events, outcome, chance = Events(), Outcome(seconds), random.Random(seed)
    shared = Database(events, **database)
    writers = [[Writer(events, queue(), shared, outcome, lane) for lane in range(len(shared.lanes))]
               for _ in range(replicas)]

    def send(call):
        return chance.choice(chance.choice(writers)).push(call)

    def arrive():
        send(Call(events.now, timeout))
        gap = 1 / rate if even else chance.expovariate(rate)
        if events.now + gap < seconds:
            events.at(events.now + gap, arrive)

    def again():
        if events.now < seconds and not send(Call(events.now, timeout, again)):
            # A refused caller of a closed loop holds back for a moment.
            events.at(events.now + 0.01, again)

    if rate:
        events.at(0.0, arrive)
    for _ in range(in_flight or 0):
        events.at(0.0, again)
    events.run()
    return outcome
