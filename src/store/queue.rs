//! Writes that wait for the one writer of a store.
//!
//! A writer takes waiting writes as one batch, and to wake another thread is a system
//! call. So the writer is woken only when as many writes wait as it waits for, and the
//! callers of a batch once for each thread that they are on.
//!
//! The thread that puts a write in wakes the writer only after what it has to do already,
//! which may be to put in more. Where the two share a core, a writer that is woken at the
//! first write takes the core immediately, and commits two or three writes at a time just when
//! there is the least CPU for that. A whole batch wakes the writer immediately.
//!
//! **Invariant:** a call's write is queued only if the writer is idle or, by the [`Forecast`], it
//! will be durable before its deadline. A write whose deadline the next commit would miss is not
//! begun, unless there is no other: a commit tells then whether the forecast is right.

use std::{
    collections::VecDeque,
    future::poll_fn,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tokio::{
    runtime::{self, Handle},
    sync::oneshot,
};

use super::{
    CLOSED,
    forecast::{Forecast, MAX_RETRY_DELAY, Refusal},
    metrics::{WriterMetrics, count},
};
use crate::domain::{Change, Deadline, Error, Write, WriteResult};

/// The part of a batch that imports get at least, while imports wait: one in so many.
const IMPORT_SHARE: usize = 8;

pub(super) type WriteAnswer = Result<WriteResult, Error>;

/// A write that waits, and who waits for it.
pub(super) struct PendingWrite {
    pub write: Write,
    deadline: Deadline,
    answer: oneshot::Sender<WriteAnswer>,
    /// Where the answer is waited for.
    runtime: Handle,
}

impl PendingWrite {
    /// Whether its caller is gone or its deadline has passed, so that it is not begun.
    pub fn is_abandoned(&self) -> bool {
        self.answer.is_closed() || self.deadline.is_over()
    }
}

/// Where writes are put.
pub(super) struct Queue {
    limit: usize,
    metrics: WriterMetrics,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Writes of callers who wait for one answer.
    calls: VecDeque<PendingWrite>,
    /// Writes of imports, which wait longer.
    imports: VecDeque<PendingWrite>,
    /// Callers who were refused and told to come again, and have not been given time for.
    refused: usize,
    forecast: Forecast,
    /// How many must wait for the writer to be woken.
    wanted: usize,
    writer: Option<Waker>,
    /// The runtimes that wake it later. Each does so for its own writes, because another one may
    /// have much more to do before.
    woken_by: Vec<runtime::Id>,
    closed: bool,
}

impl State {
    fn len(&self) -> usize {
        self.calls.len() + self.imports.len()
    }

    /// How many writes are committed before, or with, a call that comes now.
    fn ahead(&self) -> usize {
        self.calls.len() + self.imports.len().min(self.forecast.batch_limit() / IMPORT_SHARE)
    }
}

/// Wakes the writer when it is dropped: also where its task never runs because its runtime ends,
/// since there may be writes of other runtimes.
struct WakeLater {
    queue: Arc<Queue>,
    runtime: runtime::Id,
}

impl Drop for WakeLater {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.woken_by.retain(|runtime| *runtime != self.runtime);
        if state.len() >= state.wanted {
            wake(state);
        }
    }
}

/// Wakes the writer if it waits, which takes the lock then.
fn wake(mut state: MutexGuard<'_, State>) {
    let writer = state.writer.take();
    drop(state);
    if let Some(writer) = writer {
        writer.wake();
    }
}

/// The writer's end. Dropping it drops the queued writes and closes the queue.
pub(super) struct WriteReceiver(Arc<Queue>);

/// A queue that so many writes may wait in.
pub(super) fn queue(limit: usize) -> (Arc<Queue>, WriteReceiver) {
    let queue = Arc::new(Queue { limit, metrics: WriterMetrics::new(limit), state: Mutex::default() });
    (Arc::clone(&queue), WriteReceiver(queue))
}

impl Queue {
    /// Puts a write in, on the runtime that waits for its answer. Without an answer its
    /// outcome is unknown.
    ///
    /// # Errors
    /// [`Error::Overloaded`] where the write could not be durable in time.
    pub fn push(
        self: &Arc<Self>,
        write: Write,
        deadline: Deadline,
    ) -> Result<oneshot::Receiver<WriteAnswer>, Error> {
        let (answer, answered) = oneshot::channel();
        let is_import = matches!(write.change, Change::Import { .. });
        let request = PendingWrite { write, deadline, answer, runtime: Handle::current() };
        let runtime = request.runtime.id();
        let mut state = self.state();
        if state.closed {
            return Err(CLOSED);
        }
        if let Err(refused) = self.admit(&state, is_import, deadline) {
            refused.increment(1);
            return Err(state.refuse(deadline, Instant::now()));
        }
        if is_import { &mut state.imports } else { &mut state.calls }.push_back(request);
        self.metrics.queue_depth.increment(1.0);
        if state.writer.is_some() && state.len() >= state.wanted {
            if state.len() >= state.forecast.batch_limit() {
                wake(state);
            } else if !state.woken_by.contains(&runtime) {
                state.woken_by.push(runtime);
                drop(state);
                let later = WakeLater { queue: Arc::clone(self), runtime };
                drop(tokio::spawn(async move { drop(later) }));
            }
        }
        Ok(answered)
    }

    /// Whether there is room and time for a write; if not, the counter of the reason.
    fn admit(&self, state: &State, is_import: bool, deadline: Deadline) -> Result<(), &metrics::Counter> {
        if state.len() >= self.limit {
            return Err(&self.metrics.refused_full);
        }
        // An import has no caller who waits for the single write: its window bounds it.
        if is_import {
            return Ok(());
        }
        match state.forecast.admit(state.ahead(), deadline.remaining(), Instant::now()) {
            Ok(()) => Ok(()),
            Err(Refusal::Wait) => Err(&self.metrics.refused_wait),
            Err(Refusal::Deadline) => Err(&self.metrics.refused_deadline),
        }
    }

    /// Closes the queue. Queued writes can still be taken.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        wake(state);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What a caller is told whose write is not queued.
    fn refuse(&mut self, deadline: Deadline, now: Instant) -> Error {
        let mut retry_delay = self.forecast.retry_delay(self.ahead(), self.refused + 1, now);
        // Who cannot be given time for within the longest delay is not counted.
        if retry_delay < MAX_RETRY_DELAY {
            self.refused += 1;
        }
        // Who gives a write less time than a commit takes is told of no room that is not there.
        if !self.forecast.ends_within(deadline.remaining(), now) {
            retry_delay = retry_delay.max(self.forecast.commit().min(MAX_RETRY_DELAY));
        }
        Error::Overloaded { retry_delay }
    }

    /// Takes the next batch: calls, with room left for imports, and then imports.
    fn take(&mut self) -> Vec<PendingWrite> {
        let limit = self.forecast.batch_limit();
        let for_imports = self.imports.len().min(limit / IMPORT_SHARE);
        let calls = self.calls.len().min(limit - for_imports);
        let imports = self.imports.len().min(limit - calls);
        self.refused = self.refused.saturating_sub(limit);
        self.calls.drain(..calls).chain(self.imports.drain(..imports)).collect()
    }

    /// Takes those out of the calls whose deadline is before the end of the next commit,
    /// unless that are all: then the forecast may be wrong, and a commit will tell.
    fn expired(&mut self, now: Instant) -> Vec<PendingWrite> {
        let in_time = |request: &PendingWrite, forecast: &Forecast| {
            !request.is_abandoned() && forecast.ends_within(request.deadline.remaining(), now)
        };
        if self.calls.iter().all(|request| in_time(request, &self.forecast)) {
            return Vec::new();
        }
        let (kept, expired): (VecDeque<_>, VecDeque<_>) =
            mem::take(&mut self.calls).into_iter().partition(|request| in_time(request, &self.forecast));
        if kept.is_empty() && self.imports.is_empty() {
            self.calls = expired;
            return Vec::new();
        }
        self.calls = kept;
        expired.into()
    }
}

impl WriteReceiver {
    /// Until so many are waiting, or no more will come.
    pub async fn wait_for(&self, wanted: usize) {
        poll_fn(|context| self.poll_wait_for(wanted, context)).await;
    }

    fn poll_wait_for(&self, wanted: usize, context: &Context<'_>) -> Poll<()> {
        let mut state = self.0.state();
        if state.closed || state.len() >= wanted {
            state.writer = None;
            return Poll::Ready(());
        }
        state.wanted = wanted;
        state.writer = Some(context.waker().clone());
        Poll::Pending
    }

    /// The next batch, an empty one where nothing waits; `None` where nothing will come
    /// any more. The writer reports the end of each batch that is not empty with
    /// [`Self::committed`].
    pub fn take(&self) -> Option<Vec<PendingWrite>> {
        let mut state = self.0.state();
        if state.len() == 0 {
            // There is room for all who come.
            state.refused = 0;
            return (!state.closed).then(Vec::new);
        }
        let now = Instant::now();
        let expired = state.expired(now);
        let requests = state.take();
        state.forecast.begin_commit(requests.len(), now);
        let delay = state.forecast.retry_delay(state.ahead(), state.refused, now);
        drop(state);
        let Queue { metrics, .. } = &*self.0;
        metrics.queue_depth.decrement(count(requests.len() + expired.len()));
        metrics.batch_size.record(count(requests.len()));
        metrics.refused_expired.increment(expired.len() as u64);
        let late = |request: &PendingWrite| {
            let over = request.deadline.is_over();
            Err(if over { Error::DeadlineExceeded } else { Error::Overloaded { retry_delay: delay } })
        };
        let answers: Vec<_> = expired.iter().map(late).collect();
        answer(expired, answers);
        Some(requests)
    }

    /// A batch was committed, or has failed.
    pub fn committed(&self) {
        let mut state = self.0.state();
        state.forecast.end_commit(Instant::now());
        let commit = state.forecast.commit();
        drop(state);
        self.0.metrics.commit_time.set(commit.as_secs_f64());
    }

    /// Other work than commits will be done after the next batch, for about as long as
    /// `expected`: writes whose deadlines are before its end are refused from now on.
    pub fn plan(&self, expected: Duration) {
        self.0.state().forecast.plan_other(expected);
    }

    /// Whether the next commit takes twice as long as others.
    pub fn expect_double(&self, is_double: bool) {
        self.0.state().forecast.expect_double(is_double);
    }

    /// How long a commit takes.
    pub fn commit_time(&self) -> Duration {
        self.0.state().forecast.commit()
    }

    /// Does work other than a commit that should take as long as `expected`, and counts it
    /// into the forecast of a write's wait.
    pub fn busy<T>(&self, expected: Duration, work: impl FnOnce() -> T) -> T {
        self.0.state().forecast.begin_other(expected, Instant::now());
        // Also where the work panics: the forecast would go on to count it.
        let _ended = EndOther(&self.0);
        work()
    }

    /// How many are waiting.
    pub fn len(&self) -> usize {
        self.0.state().len()
    }

    /// How many a batch holds at most.
    pub fn batch_limit(&self) -> usize {
        self.0.state().forecast.batch_limit()
    }
}

/// Other work of the writer, until it is dropped.
struct EndOther<'a>(&'a Queue);

impl Drop for EndOther<'_> {
    fn drop(&mut self) {
        self.0.state().forecast.end_other();
    }
}

impl Drop for WriteReceiver {
    fn drop(&mut self) {
        self.0.close();
        let mut state = self.0.state();
        let left = (mem::take(&mut state.calls), mem::take(&mut state.imports));
        drop(state);
        self.0.metrics.queue_depth.decrement(count(left.0.len() + left.1.len()));
    }
}

/// Answers requests, each with its own.
pub(super) fn answer(requests: Vec<PendingWrite>, answers: impl IntoIterator<Item = WriteAnswer>) {
    type Told = (oneshot::Sender<WriteAnswer>, WriteAnswer);
    let mut places: Vec<(Handle, Vec<Told>)> = Vec::new();
    for (PendingWrite { answer, runtime, .. }, said) in requests.into_iter().zip(answers) {
        match places.iter_mut().find(|(place, _)| place.id() == runtime.id()) {
            Some((_, answers)) => answers.push((answer, said)),
            None => places.push((runtime, vec![(answer, said)])),
        }
    }
    for (place, answers) in places {
        place.spawn(async {
            for (answer, said) in answers {
                // The caller may be gone.
                let _ = answer.send(said);
            }
        });
    }
}

#[cfg(test)]
mod tests;
