//! Writes that wait for the one writer of a store.
//!
//! A writer takes what is waiting as one batch, and what wakes somebody on another
//! thread is a system call. So the writer is woken once for a batch, when as many are
//! there as it waits for, and the callers of a batch once for each thread that they
//! are on.

use std::{
    collections::VecDeque,
    future::poll_fn,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use tokio::{runtime::Handle, sync::oneshot};

use super::{CLOSED, metrics::WriterMetrics};
use crate::domain::{Deadline, Error, Write, WriteResult};

/// The most writes in one commit: bounds how long the first of them waits.
pub(super) const MAX_BATCH_WRITES: usize = 256;

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
    /// Whether nobody waits for it any more, so that it need not be begun.
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
    waiting: VecDeque<PendingWrite>,
    /// How many must be there for the writer to be woken.
    wanted: usize,
    writer: Option<Waker>,
    closed: bool,
}

/// Where the writer takes them. What is still waiting when this is dropped is dropped
/// too, and nothing is let in any more.
pub(super) struct WriteReceiver(Arc<Queue>);

/// A queue that so many writes may wait in.
pub(super) fn queue(limit: usize) -> (Arc<Queue>, WriteReceiver) {
    let queue = Arc::new(Queue { limit, metrics: WriterMetrics::new(limit), state: Mutex::default() });
    (Arc::clone(&queue), WriteReceiver(queue))
}

impl Queue {
    /// Puts a write in, on the runtime that waits for its answer. Without an answer its
    /// outcome is unknown.
    pub fn push(&self, write: Write, deadline: Deadline) -> Result<oneshot::Receiver<WriteAnswer>, Error> {
        let (answer, answered) = oneshot::channel();
        let request = PendingWrite { write, deadline, answer, runtime: Handle::current() };
        let mut state = self.state();
        if state.closed {
            return Err(CLOSED);
        }
        if state.waiting.len() >= self.limit {
            return Err(Error::Overloaded);
        }
        state.waiting.push_back(request);
        self.metrics.queue_depth.increment(1.0);
        if state.waiting.len() >= state.wanted
            && let Some(writer) = state.writer.take()
        {
            drop(state);
            writer.wake();
        }
        Ok(answered)
    }

    /// Lets nothing in any more. What is waiting can still be taken.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WriteReceiver {
    /// Until so many are waiting, or no more will come.
    pub async fn wait_for(&self, wanted: usize) {
        poll_fn(|context| self.poll_wait_for(wanted, context)).await;
    }

    fn poll_wait_for(&self, wanted: usize, context: &Context<'_>) -> Poll<()> {
        let mut state = self.0.state();
        if state.closed || state.waiting.len() >= wanted {
            state.writer = None;
            return Poll::Ready(());
        }
        state.wanted = wanted;
        state.writer = Some(context.waker().clone());
        Poll::Pending
    }

    /// The next batch, an empty one where nothing waits; `None` where nothing will come
    /// any more.
    pub fn take(&self) -> Option<Vec<PendingWrite>> {
        let mut state = self.0.state();
        let size = state.waiting.len().min(MAX_BATCH_WRITES);
        if size == 0 {
            return (!state.closed).then(Vec::new);
        }
        let requests = state.waiting.drain(..size).collect();
        drop(state);
        #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
        let size = size as f64;
        self.0.metrics.queue_depth.decrement(size);
        self.0.metrics.batch_size.record(size);
        Some(requests)
    }

    /// How many are waiting.
    pub fn len(&self) -> usize {
        self.0.state().waiting.len()
    }
}

impl Drop for WriteReceiver {
    fn drop(&mut self) {
        self.0.close();
        let left = mem::take(&mut self.0.state().waiting);
        #[expect(clippy::cast_precision_loss, reason = "a queue is small")]
        self.0.metrics.queue_depth.decrement(left.len() as f64);
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
                // Whoever asked may be gone by now.
                let _ = answer.send(said);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::{
        domain::{Change, UserId},
        store::BATCH_SIZE,
        telemetry::testing::recorded,
    };

    fn push(queue: &Queue) -> Result<oneshot::Receiver<WriteAnswer>, Error> {
        let change = Change::Delete { id: UserId::generate(), etag: None, allow_missing: true };
        queue.push(Write { change, idempotency: None, validate_only: false }, Deadline::NONE)
    }

    const DONE: WriteAnswer = Ok(WriteResult { user: None, revision: 1 });

    #[tokio::test]
    async fn the_writer_is_woken_when_as_many_wait_as_it_waits_for() {
        let (queue, receiver) = queue(8);
        let woken = tokio::spawn(async move {
            receiver.wait_for(2).await;
            (receiver.len(), receiver)
        });
        tokio::task::yield_now().await;
        let _first = push(&queue).unwrap();
        tokio::task::yield_now().await;
        assert!(!woken.is_finished());
        let _second = push(&queue).unwrap();
        let (waiting, receiver) = woken.await.unwrap();
        assert_eq!(waiting, 2);
        assert_eq!(receiver.take().unwrap().len(), 2);
        assert!(receiver.take().unwrap().is_empty());
    }

    #[tokio::test]
    async fn only_batches_that_hold_something_are_counted() {
        let lines = recorded(|| {
            let (queue, receiver) = queue(8);
            let _waiting = push(&queue).unwrap();
            assert_eq!(receiver.take().unwrap().len(), 1);
            assert!(receiver.take().unwrap().is_empty());
        });
        assert!(lines.contains(&format!("{BATCH_SIZE}_count 1")), "{lines:?}");
    }

    #[tokio::test]
    async fn each_is_answered_with_its_own() {
        let (queue, receiver) = queue(8);
        let (first, second) = (push(&queue).unwrap(), push(&queue).unwrap());
        answer(receiver.take().unwrap(), [DONE, Err(Error::OutcomeUnknown)]);
        assert_eq!(first.await.unwrap().unwrap().revision, 1);
        assert!(matches!(second.await.unwrap(), Err(Error::OutcomeUnknown)));
    }

    #[tokio::test]
    async fn a_full_queue_takes_no_more() {
        let (queue, receiver) = queue(1);
        let _first = push(&queue).unwrap();
        assert!(matches!(push(&queue), Err(Error::Overloaded)));
        receiver.take();
        assert!(push(&queue).is_ok());
    }

    #[tokio::test]
    async fn what_was_let_in_before_the_end_can_be_taken() {
        let (queue, receiver) = queue(8);
        let _first = push(&queue).unwrap();
        queue.close();
        assert!(matches!(push(&queue), Err(Error::Unavailable(_))));
        assert!(receiver.wait_for(MAX_BATCH_WRITES).now_or_never().is_some(), "no more will come");
        assert_eq!(receiver.take().unwrap().len(), 1);
        assert!(receiver.take().is_none());
    }

    #[tokio::test]
    async fn nobody_waits_for_a_writer_that_is_gone() {
        let (queue, receiver) = queue(8);
        let waiting = push(&queue).unwrap();
        drop(receiver);
        assert!(waiting.await.is_err());
        assert!(push(&queue).is_err());
    }
}
