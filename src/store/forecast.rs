//! When a queued write would be durable, from what commits took lately.
//!
//! A queue that is bounded by number alone grows longer than its callers' deadlines as
//! soon as the disk is slow: then every write in it is committed too late, for as long
//! as the load lasts. So a write is queued only if its commit can end in time.

use std::time::{Duration, Instant};

use super::moving_average::MovingAverage;

/// The most writes in one commit on a quick disk.
pub(super) const MIN_BATCH_LIMIT: usize = 256;

/// The most writes in one commit on any disk. Applying them takes some 0.1 s of CPU.
const MAX_BATCH_LIMIT: usize = 2_048;

/// The commit time up to which [`MIN_BATCH_LIMIT`] writes are enough.
const QUICK_COMMIT: Duration = Duration::from_millis(100);

/// How long a write may wait for the commits of whole batches ahead of it, after the
/// writer's work under way.
const QUEUE_SLACK: Duration = Duration::from_millis(100);

/// What the answers of a batch take, each: one is sent no earlier than the others are made.
const ANSWER: Duration = Duration::from_micros(10);

/// What an answer takes from its commit to its caller, besides.
pub(super) const ANSWER_SLACK: Duration = Duration::from_millis(5);

/// The bounds of what a refused caller is asked to wait.
pub(super) const MIN_RETRY_DELAY: Duration = Duration::from_millis(10);
pub(super) const MAX_RETRY_DELAY: Duration = Duration::from_secs(10);

/// What commits took lately, and what the writer does now.
#[derive(Debug, Default)]
pub(super) struct Forecast {
    commit: MovingAverage<2>,
    /// What the writer does now.
    work: Option<Work>,
    /// How long it will do other work before the next commit.
    planned: Duration,
    /// Whether the next commit will take twice as long as others.
    next_is_double: bool,
    /// How many writes the last batch held.
    batch: usize,
}

#[derive(Clone, Copy, Debug)]
struct Work {
    began: Instant,
    expected: Duration,
    /// How many ordinary commits it takes as long as, if it is a commit; 0 otherwise.
    commits: u32,
}

/// Why a write, or a read, is not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// More batches are ahead of it than quick commits clear.
    Wait,
    /// Its deadline is before the end of its commit.
    Deadline,
}

impl Forecast {
    /// A commit of so many writes begins.
    pub fn begin_commit(&mut self, writes: usize, now: Instant) {
        self.batch = writes;
        let commits = self.next_commits();
        self.next_is_double = false;
        self.work = Some(Work { began: now, expected: self.commit.mean * commits, commits });
    }

    /// The writer will do something else before the next commit, for about as long as `expected`.
    pub fn plan_other(&mut self, expected: Duration) {
        self.planned = expected;
    }

    /// The writer is busy with something else, for about as long as `expected`.
    pub fn begin_other(&mut self, expected: Duration, now: Instant) {
        self.planned = Duration::ZERO;
        self.work = Some(Work { began: now, expected, commits: 0 });
    }

    /// The next commit takes twice as long as others, or does not.
    pub fn expect_double(&mut self, is_double: bool) {
        self.next_is_double = is_double;
    }

    pub fn end_commit(&mut self, now: Instant) {
        if let Some(Work { began, commits, .. }) = self.work.take() {
            self.commit.add(now.saturating_duration_since(began) / commits.max(1));
        }
    }

    pub fn end_other(&mut self) {
        self.work = None;
    }

    /// How long a commit takes.
    pub fn commit(&self) -> Duration {
        self.commit.mean
    }

    /// How many writes one commit takes at most. A slow disk makes few commits, so each
    /// holds more.
    pub fn batch_limit(&self) -> usize {
        let limit = MIN_BATCH_LIMIT as u128 * self.commit().as_micros() / QUICK_COMMIT.as_micros();
        usize::try_from(limit).unwrap_or(MAX_BATCH_LIMIT).clamp(MIN_BATCH_LIMIT, MAX_BATCH_LIMIT)
    }

    /// Whether a write behind `ahead` others can be durable within `left`. An idle writer
    /// takes every write: only commits can show that the disk has become quick again.
    pub fn admit(&self, ahead: usize, left: Option<Duration>, now: Instant) -> Result<(), Refusal> {
        if ahead == 0 && self.work.is_none() {
            return Ok(());
        }
        let (busy, batches) = (self.busy(now), self.batches(ahead));
        if left.is_some_and(|left| left < busy + self.next_commit(now) * batches + self.bound(now)) {
            return Err(Refusal::Deadline);
        }
        // By the average, and whatever the writer does now: one slow commit among quick ones,
        // or a checkpoint, makes a wait and no overload.
        if self.commit() * batches > QUEUE_SLACK { Err(Refusal::Wait) } else { Ok(()) }
    }

    /// Whether a commit that begins now ends within `left`.
    pub fn ends_within(&self, left: Option<Duration>, now: Instant) -> bool {
        left.is_none_or(|left| left > self.bound(now))
    }

    /// When the last of `refused` callers can come again, behind `ahead` queued writes:
    /// each commit makes room for one batch of them.
    pub fn retry_delay(&self, ahead: usize, refused: usize, now: Instant) -> Duration {
        let batches = self.batches((ahead + refused).saturating_sub(self.batch_limit()));
        let delay = self.busy(now) + self.next_commit(now) * batches;
        delay.clamp(MIN_RETRY_DELAY, MAX_RETRY_DELAY)
    }

    /// How long the writer works until it can begin the next commit.
    fn busy(&self, now: Instant) -> Duration {
        let left = |work: Work| (work.began + work.expected).saturating_duration_since(now);
        self.work.map_or(Duration::ZERO, left) + self.planned
    }

    /// How many ordinary commits the next one takes as long as.
    fn next_commits(&self) -> u32 {
        1 + u32::from(self.next_is_double)
    }

    /// How many whole batches there are in so many writes.
    fn batches(&self, writes: usize) -> u32 {
        u32::try_from(writes / self.batch_limit()).unwrap_or(u32::MAX)
    }

    /// How long the next commit takes: at least as long as one that has not ended yet.
    fn next_commit(&self, now: Instant) -> Duration {
        let so_far = |work: Work| now.saturating_duration_since(work.began).checked_div(work.commits);
        self.commit().max(self.work.and_then(so_far).unwrap_or_default())
    }

    /// How long a commit takes, but for one in many, and its answers' way back. It is taken
    /// to hold as many writes as the last one.
    fn bound(&self, now: Instant) -> Duration {
        let answers = ANSWER * u32::try_from(self.batch).unwrap_or(u32::MAX) + ANSWER_SLACK;
        self.next_commit(now) * self.next_commits() + self.commit.deviation * 2 + answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// After many commits of `commit` each, and during one that began `so_far` ago.
    fn forecast(commit: Duration, so_far: Duration) -> (Forecast, Instant) {
        let mut forecast = Forecast::default();
        let mut now = Instant::now();
        for _ in 0..40 {
            forecast.begin_commit(1, now);
            now += commit;
            forecast.end_commit(now);
        }
        forecast.begin_commit(1, now);
        (forecast, now + so_far)
    }

    #[test]
    fn a_write_is_queued_if_its_commit_ends_before_its_deadline() {
        let (forecast, now) = forecast(500 * MS, 100 * MS);
        // 400 ms of this commit and 500 ms of the next one are to come.
        assert_eq!(forecast.admit(10, Some(910 * MS), now), Ok(()));
        assert_eq!(forecast.admit(10, Some(890 * MS), now), Err(Refusal::Deadline));
        assert_eq!(forecast.admit(10, None, now), Ok(()));
    }

    #[test]
    fn the_answers_of_a_large_batch_take_time_as_well() {
        let (mut forecast, now) = forecast(100 * MS, 100 * MS);
        forecast.end_commit(now);
        forecast.begin_commit(2_000, now);
        // 100 ms of this commit, 100 ms of the next one, and 20 ms of answers are to come.
        assert_eq!(forecast.admit(10, Some(230 * MS), now), Ok(()));
        assert_eq!(forecast.admit(10, Some(215 * MS), now), Err(Refusal::Deadline));
    }

    #[test]
    fn after_its_first_commit_a_slow_disk_is_known() {
        let (mut forecast, mut now) = (Forecast::default(), Instant::now());
        for _ in 0..2 {
            forecast.begin_commit(1, now);
            now += 500 * MS;
            forecast.end_commit(now);
        }
        forecast.begin_commit(1, now);
        // 490 ms of this commit and 500 ms of the next one are to come.
        assert_eq!(forecast.admit(10, Some(1_000 * MS), now + 10 * MS), Ok(()));
    }

    #[test]
    fn no_write_waits_for_more_than_one_commit() {
        let (forecast, now) = forecast(500 * MS, 100 * MS);
        let batch = forecast.batch_limit();
        assert_eq!(forecast.admit(batch - 1, None, now), Ok(()));
        assert_eq!(forecast.admit(batch, None, now), Err(Refusal::Wait));
        // Quick commits leave time for many batches.
        let (quick, now) = self::forecast(MS, Duration::ZERO);
        assert_eq!(quick.admit(40 * MIN_BATCH_LIMIT, None, now), Ok(()));
        assert_eq!(quick.admit(120 * MIN_BATCH_LIMIT, None, now), Err(Refusal::Wait));
    }

    #[test]
    fn one_slow_commit_among_quick_ones_refuses_no_write_that_has_time() {
        let (forecast, now) = forecast(MS, 300 * MS);
        assert_eq!(forecast.admit(4 * MIN_BATCH_LIMIT, None, now), Ok(()));
    }

    #[test]
    fn a_long_checkpoint_refuses_no_write_that_has_time() {
        let (mut forecast, now) = forecast(MS, MS);
        forecast.end_commit(now);
        forecast.begin_other(3_000 * MS, now);
        assert_eq!(forecast.admit(10, None, now), Ok(()));
        assert_eq!(forecast.admit(10, Some(1_000 * MS), now), Err(Refusal::Deadline));
        // It says nothing of the commit that follows it.
        let almost_done = now + 2_900 * MS;
        assert_eq!(forecast.admit(10, Some(1_000 * MS), almost_done), Ok(()));
    }

    #[test]
    fn work_that_is_planned_is_waited_for_as_if_it_had_begun() {
        let (mut forecast, now) = forecast(100 * MS, Duration::ZERO);
        assert_eq!(forecast.admit(10, Some(300 * MS), now), Ok(()));
        forecast.plan_other(300 * MS);
        assert_eq!(forecast.admit(10, Some(300 * MS), now), Err(Refusal::Deadline));
        assert_eq!(forecast.admit(10, Some(600 * MS), now), Ok(()));
        assert!(forecast.retry_delay(10, 1, now) >= 400 * MS);
        let now = now + 100 * MS;
        forecast.end_commit(now);
        forecast.begin_other(300 * MS, now);
        assert_eq!(forecast.admit(10, Some(500 * MS), now), Ok(()), "it counts once");
    }

    #[test]
    fn a_commit_that_was_to_take_twice_as_long_says_nothing_new_of_the_disk() {
        let (mut forecast, now) = forecast(100 * MS, 100 * MS);
        forecast.end_commit(now);
        forecast.expect_double(true);
        assert!(!forecast.ends_within(Some(200 * MS), now) && forecast.ends_within(Some(210 * MS), now));
        forecast.begin_commit(1, now);
        // 150 ms of it and 100 ms of the next one are to come.
        assert_eq!(forecast.admit(10, Some(260 * MS), now + 50 * MS), Ok(()));
        assert_eq!(forecast.admit(10, Some(240 * MS), now + 50 * MS), Err(Refusal::Deadline));
        forecast.end_commit(now + 200 * MS);
        assert_eq!(forecast.commit(), 100 * MS);
    }

    #[test]
    fn commits_grow_where_the_disk_is_slow() {
        let limit = |commit| forecast(commit, Duration::ZERO).0.batch_limit();
        assert_eq!(limit(MS), MIN_BATCH_LIMIT);
        assert_eq!(limit(100 * MS), MIN_BATCH_LIMIT);
        assert!((5 * MIN_BATCH_LIMIT - 8..=5 * MIN_BATCH_LIMIT).contains(&limit(500 * MS)));
        assert_eq!(limit(10_000 * MS), MAX_BATCH_LIMIT);
    }

    #[test]
    fn an_idle_writer_takes_every_write_and_so_notices_a_quick_disk() {
        let (mut forecast, mut now) = forecast(8_000 * MS, Duration::ZERO);
        now += 8_000 * MS;
        forecast.end_commit(now);
        assert_eq!(forecast.admit(0, Some(MS), now), Ok(()));
        let mut commits = 0;
        while !forecast.ends_within(Some(200 * MS), now) {
            forecast.begin_commit(1, now);
            now += MS;
            forecast.end_commit(now);
            commits += 1;
        }
        assert!(commits < 40, "{commits} commits of a millisecond each");
    }

    #[test]
    fn a_commit_that_does_not_end_is_expected_again() {
        let (forecast, now) = forecast(MS, 2_000 * MS);
        assert_eq!(forecast.admit(0, Some(1_000 * MS), now), Err(Refusal::Deadline));
        assert!(forecast.retry_delay(0, 1, now) >= MIN_RETRY_DELAY);
    }

    /// The arithmetic of a single server with batches: what arrives while one commit runs
    /// is in the next one, as far as that has room.
    #[test]
    fn at_any_load_nearly_as_many_are_committed_as_the_disk_takes() {
        for (commit, times) in [(20, 3), (100, 1), (100, 3), (500, 2), (500, 10)] {
            let commit = commit * MS;
            let (mut forecast, mut now) = forecast(commit, Duration::ZERO);
            let capacity = forecast.batch_limit();
            let offered = capacity * times;
            let (mut queued, mut answered) = (Vec::new(), 0);
            for _ in 0..20 {
                // The load is even, and each caller gives its write a second.
                for n in 0..offered {
                    let at = now + commit * u32::try_from(n).unwrap() / u32::try_from(offered).unwrap();
                    let left = Duration::from_secs(1);
                    if forecast.admit(queued.len(), Some(left), at).is_ok() {
                        queued.push(at + left);
                    }
                }
                now += commit;
                forecast.end_commit(now);
                let batch: Vec<_> = queued.drain(..queued.len().min(capacity)).collect();
                let in_time = batch.iter().filter(|deadline| **deadline >= now + commit).count();
                assert_eq!(in_time, batch.len(), "nothing is stored for a caller who has gone");
                answered += in_time;
                forecast.begin_commit(batch.len(), now);
            }
            let could_be = 20 * capacity;
            assert!(answered * 10 >= could_be * 9, "{commit:?}, {times}x: {answered} of {could_be}");
        }
    }
}
