//! When a waiting read would begin and end, from what reads took lately.
//!
//! So many reads run concurrently, and the others wait in the order in which they came. A
//! queue of them that is bounded by number alone grows longer than its callers' deadlines
//! as soon as reads are slow, and from then on every answer is too late. So a read waits only if
//! it can end in time.
//!
//! A page of 1,000 users and a batch of two differ, and by how much depends on the store.
//! So there is an average for each kind of read and each magnitude of its size.

use std::time::{Duration, Instant};

use super::{
    forecast::{ANSWER_SLACK, MAX_RETRY_DELAY, MIN_RETRY_DELAY, Refusal},
    moving_average::MovingAverage,
};
use crate::domain::MAX_PAGE_SIZE;

/// How long a read may wait for those before it: half of its caller's time, between these. A caller
/// who has time would rather wait than come again, above all while a replica starts, whose first
/// reads are its slowest. But a queue as long as its callers' time answers at the last moment.
const MIN_WAIT: Duration = Duration::from_millis(500);
const MAX_WAIT: Duration = Duration::from_secs(2);

/// How many kinds there are in [`ReadKind`].
const KINDS: usize = 2;

/// Sizes have an average for each power of two.
const MAGNITUDES: usize = MAX_PAGE_SIZE.ilog2() as usize + 1;

#[derive(Clone, Copy, Debug)]
pub(super) enum ReadKind {
    Batch,
    Page,
}

/// Reads that take about the same time: those of one kind whose sizes have one magnitude.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReadClass(usize);

impl ReadClass {
    /// The class of a read of up to `rows` users.
    pub fn new(kind: ReadKind, rows: usize) -> Self {
        let magnitude = rows.clamp(1, MAX_PAGE_SIZE).ilog2() as usize;
        Self(kind as usize * MAGNITUDES + magnitude)
    }
}

type Average = MovingAverage<8>;

/// A read that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    class: ReadClass,
    expected: Duration,
}

/// A read that runs.
#[derive(Debug)]
pub(super) struct Running {
    number: u64,
    class: ReadClass,
    began: Instant,
    expected: Duration,
}

/// What reads took lately, and which run and wait now.
#[derive(Debug)]
pub(super) struct ReadForecast {
    /// How many run concurrently.
    slots: usize,
    classes: [Average; KINDS * MAGNITUDES],
    /// Of all classes together.
    all: Average,
    /// By class, how many run or wait.
    active: [usize; KINDS * MAGNITUDES],
    /// Those that run: their numbers, since when, and how long each should take.
    running: Vec<(u64, Instant, Duration)>,
    waiting: usize,
    /// How long those that wait should take, one after the other.
    waiting_work: Duration,
    /// Callers who were refused and told to come again, and have not been given time for.
    refused: u32,
    begun: u64,
}

impl ReadForecast {
    pub fn new(slots: usize) -> Self {
        Self {
            slots,
            classes: Default::default(),
            all: Average::default(),
            active: Default::default(),
            running: Vec::with_capacity(slots),
            waiting: 0,
            waiting_work: Duration::ZERO,
            refused: 0,
            begun: 0,
        }
    }

    /// Lets a read wait, if it can begin soon and end within `left`. Where it begins immediately,
    /// it need not be certain that it does. Alone of its class it is taken if it can begin: only
    /// reads can show that reads have become quick again.
    pub fn admit(
        &mut self,
        class: ReadClass,
        left: Option<Duration>,
        now: Instant,
    ) -> Result<Waiting, Refusal> {
        // By the averages, and whatever runs now: one slow read among quick ones makes a
        // wait and no overload.
        if self.share(self.waiting_work) > self.target(left) {
            return Err(Refusal::Wait);
        }
        let takes = if self.active[class.0] == 0 {
            Duration::ZERO
        } else if self.is_idle() {
            self.expected(class).mean
        } else {
            self.bound(class, now)
        };
        if left.is_some_and(|left| left < self.wait(now) + takes) {
            return Err(Refusal::Deadline);
        }
        let expected = self.expected(class).mean;
        self.active[class.0] += 1;
        self.waiting += 1;
        self.waiting_work += expected;
        Ok(Waiting { class, expected })
    }

    /// Whether a read whose turn it is should still end within `left`.
    pub fn ends_within(&self, waiting: &Waiting, left: Option<Duration>) -> bool {
        let alone = self.active[waiting.class.0] == 1;
        left.is_none_or(|left| alone || left > self.expected(waiting.class).mean)
    }

    pub fn begin(&mut self, waiting: &Waiting, now: Instant) -> Running {
        let class = waiting.class;
        self.give_up(waiting);
        self.active[class.0] += 1;
        self.refused = self.refused.saturating_sub(1);
        self.begun += 1;
        let (number, expected) = (self.begun, self.expected(class).mean);
        self.running.push((number, now, expected));
        Running { number, class, began: now, expected }
    }

    /// A read that waited is not begun.
    pub fn give_up(&mut self, waiting: &Waiting) {
        self.active[waiting.class.0] -= 1;
        self.waiting -= 1;
        self.waiting_work -= waiting.expected;
    }

    /// A read has ended. One that failed tells only of more time than was expected.
    pub fn end(&mut self, running: &Running, succeeded: bool, now: Instant) {
        let Running { number, class, began, expected } = *running;
        self.running.retain(|(other, ..)| *other != number);
        self.active[class.0] -= 1;
        let took = now.saturating_duration_since(began);
        if succeeded || took > expected {
            self.classes[class.0].add(took);
            self.all.add(took);
        }
        if self.running.is_empty() && self.waiting == 0 {
            self.refused = 0;
        }
    }

    /// When a caller that is refused can come again: after those that wait, and those that
    /// were refused before.
    pub fn refuse(&mut self, now: Instant) -> Duration {
        let delay = self.wait(now) + self.share(self.all.mean.saturating_mul(self.refused));
        if delay < MAX_RETRY_DELAY {
            self.refused += 1;
        }
        delay.clamp(MIN_RETRY_DELAY, MAX_RETRY_DELAY)
    }

    /// How long a read takes.
    pub fn mean(&self) -> Duration {
        self.all.mean
    }

    /// How many reads of that time may wait.
    pub fn waiting_limit(&self) -> usize {
        let mean = self.all.mean.as_nanos().max(1);
        // The last one waits for as long as the target.
        let each = usize::try_from(self.target(None).as_nanos() / mean).unwrap_or(usize::MAX);
        each.saturating_mul(self.slots).saturating_add(1)
    }

    /// How long reads may wait for those before them: where reads are slow, so long that none
    /// of those that run concurrently is without a next one.
    fn target(&self, left: Option<Duration>) -> Duration {
        let wait = left.map_or(MAX_WAIT, |left| (left / 2).clamp(MIN_WAIT, MAX_WAIT));
        self.all.mean.max(wait)
    }

    /// Whether a read that comes now begins immediately.
    fn is_idle(&self) -> bool {
        self.waiting == 0 && self.running.len() < self.slots
    }

    /// How long the slots take for so much work together.
    fn share(&self, work: Duration) -> Duration {
        work / u32::try_from(self.slots).unwrap_or(u32::MAX)
    }

    /// What a class takes; of one that was not seen yet, what any took.
    fn expected(&self, class: ReadClass) -> &Average {
        let average = &self.classes[class.0];
        if average.mean.is_zero() { &self.all } else { average }
    }

    /// How long a read takes, but for one in many, and its answer's way back.
    fn bound(&self, class: ReadClass, now: Instant) -> Duration {
        let Average { mean, deviation } = *self.expected(class);
        mean.max(self.overdue(now)) + deviation * 2 + ANSWER_SLACK
    }

    /// Where every slot has a read that takes longer than expected, reads have become slow:
    /// the next one takes at least as long as each of these.
    fn overdue(&self, now: Instant) -> Duration {
        if self.running.len() < self.slots {
            return Duration::ZERO;
        }
        let so_far = self.running.iter().map(|(_, began, expected)| {
            let so_far = now.saturating_duration_since(*began);
            if so_far > *expected { so_far } else { Duration::ZERO }
        });
        so_far.min().unwrap_or_default()
    }

    /// How long a read that comes now waits at most: the work that waits is divided among the
    /// slots in the order in which they become free, as if it were a liquid.
    fn wait(&self, now: Instant) -> Duration {
        if self.is_idle() {
            return Duration::ZERO;
        }
        let waiting = u32::try_from(self.waiting).unwrap_or(u32::MAX);
        let mut work = self.waiting_work.max(self.overdue(now).saturating_mul(waiting));
        let left = |(_, began, expected): &(u64, Instant, Duration)| {
            (*began + *expected).saturating_duration_since(now)
        };
        let mut free_in = vec![Duration::ZERO; self.slots.saturating_sub(self.running.len())];
        free_in.extend(self.running.iter().map(left));
        free_in.sort_unstable();
        for (free, next) in (1..).zip(free_in.windows(2)) {
            let until_next = next[1].saturating_sub(next[0]) * free;
            if work < until_next {
                return next[0] + work / free;
            }
            work -= until_next;
        }
        free_in.last().copied().unwrap_or_default() + self.share(work)
    }
}

#[cfg(test)]
mod tests;
