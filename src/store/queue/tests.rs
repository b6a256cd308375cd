use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    task::Wake,
};

use futures_util::FutureExt;

use super::*;
use crate::{
    domain::{Change, Fields, UserId},
    store::BATCH_SIZE,
    telemetry::testing::recorded,
};

fn push(queue: &Arc<Queue>) -> Result<oneshot::Receiver<WriteAnswer>, Error> {
    push_until(queue, Deadline::NONE)
}

fn push_until(queue: &Arc<Queue>, deadline: Deadline) -> Result<oneshot::Receiver<WriteAnswer>, Error> {
    let change = Change::Delete { id: UserId::generate(), etag: None, allow_missing: true };
    queue.push(Write { change, idempotency: None, validate_only: false }, deadline)
}

fn push_import(queue: &Arc<Queue>) -> Result<oneshot::Receiver<WriteAnswer>, Error> {
    let fields = Fields::example("ada@example.com");
    let change = Change::Import { id: None, new_id: UserId::generate(), fields, create_time: None };
    queue.push(Write { change, idempotency: None, validate_only: false }, Deadline::NONE)
}

/// A deadline so far away that it is never reached in a test.
fn in_an_hour() -> Deadline {
    Deadline::at(Instant::now() + Duration::from_hours(1))
}

/// Has the queue expect that a commit takes days, and begin one.
fn with_slow_commits(queue: &Queue) {
    let mut state = queue.state();
    let now = Instant::now();
    state.forecast.begin_commit(1, now);
    state.forecast.end_commit(now + Duration::from_hours(100));
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

/// Notes how many writes wait when it is woken.
struct Seen {
    queue: Arc<Queue>,
    waiting: AtomicUsize,
}

impl Wake for Seen {
    fn wake(self: Arc<Self>) {
        self.waiting.store(self.queue.state().len(), Relaxed);
    }
}

/// A writer that waits for one write.
fn waiting_writer(queue: &Arc<Queue>, receiver: &WriteReceiver) -> Arc<Seen> {
    let seen = Arc::new(Seen { queue: Arc::clone(queue), waiting: AtomicUsize::default() });
    let waker = Waker::from(Arc::clone(&seen));
    assert!(receiver.poll_wait_for(1, &Context::from_waker(&waker)).is_pending());
    seen
}

#[tokio::test]
async fn what_its_callers_thread_has_ready_is_put_in_before_the_writer_is_woken() {
    let (queue, receiver) = queue(8);
    let seen = waiting_writer(&queue, &receiver);
    for _ in 0..3 {
        let queue = Arc::clone(&queue);
        tokio::spawn(async move { push(&queue).map(drop) });
    }
    while seen.waiting.load(Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(seen.waiting.load(Relaxed), 3);
}

#[tokio::test]
async fn a_whole_batch_wakes_the_writer_immediately() {
    let (queue, receiver) = queue(1_024);
    let seen = waiting_writer(&queue, &receiver);
    let limit = receiver.batch_limit();
    let _answered: Vec<_> = (0..limit).map(|_| push(&queue).unwrap()).collect();
    assert_eq!(seen.waiting.load(Relaxed), limit);
}

#[test]
fn a_thread_with_much_to_do_holds_up_no_write_of_another() {
    let (queue, receiver) = queue(8);
    let seen = waiting_writer(&queue, &receiver);
    let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
    // What it has ready never gets its turn.
    let busy = runtime();
    busy.block_on(async { push(&queue).map(drop) }).unwrap();
    assert_eq!(seen.waiting.load(Relaxed), 0);
    runtime().block_on(async {
        let _second = push(&queue).unwrap();
        tokio::task::yield_now().await;
    });
    assert_eq!(seen.waiting.load(Relaxed), 2);
}

#[test]
fn the_writer_is_woken_even_where_the_callers_runtime_ends_before() {
    let (queue, receiver) = queue(8);
    let seen = waiting_writer(&queue, &receiver);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let entered = runtime.enter();
    let _answered = push(&queue).unwrap();
    assert_eq!(seen.waiting.load(Relaxed), 0, "it has not run");
    drop(entered);
    drop(runtime);
    assert_eq!(seen.waiting.load(Relaxed), 1);
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
    assert!(matches!(push(&queue), Err(Error::Overloaded { .. })));
    receiver.take();
    assert!(push(&queue).is_ok());
}

#[tokio::test]
async fn what_was_let_in_before_the_end_can_be_taken() {
    let (queue, receiver) = queue(8);
    let _first = push(&queue).unwrap();
    queue.close();
    assert!(matches!(push(&queue), Err(Error::Unavailable(_))));
    assert!(receiver.wait_for(usize::MAX).now_or_never().is_some(), "no more will come");
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

#[tokio::test]
async fn a_write_that_would_be_late_is_refused_while_the_writer_is_busy() {
    let lines = recorded(|| {
        let (queue, receiver) = queue(8);
        with_slow_commits(&queue);
        let _idle = push_until(&queue, in_an_hour()).unwrap();
        assert_eq!(receiver.take().unwrap().len(), 1, "an idle writer tries");
        let refused = push_until(&queue, in_an_hour());
        assert!(matches!(refused, Err(Error::Overloaded { retry_delay }) if !retry_delay.is_zero()));
        assert!(push(&queue).is_ok(), "it has no deadline");
    });
    let refused = "user_service_store_writes_refused_total{reason=\"deadline\"} 1";
    assert!(lines.iter().any(|line| line == refused), "{lines:?}");
}

#[tokio::test]
async fn a_write_that_has_become_late_takes_no_place_in_a_batch() {
    let (queue, receiver) = queue(8);
    let late = push_until(&queue, in_an_hour()).unwrap();
    let in_time = push(&queue).unwrap();
    with_slow_commits(&queue);
    let batch = receiver.take().unwrap();
    assert_eq!(batch.len(), 1);
    assert!(matches!(late.await.unwrap(), Err(Error::Overloaded { .. })));
    answer(batch, [DONE]);
    assert!(in_time.await.unwrap().is_ok());
}

#[tokio::test]
async fn imports_leave_most_of_a_batch_to_calls_and_keep_a_part_of_it() {
    let (queue, receiver) = queue(usize::MAX);
    let limit = receiver.batch_limit();
    let imports: Vec<_> = (0..2 * limit).map(|_| push_import(&queue).unwrap()).collect();
    let calls: Vec<_> = (0..2 * limit).filter_map(|_| push(&queue).ok()).collect();
    let batch = receiver.take().unwrap();
    let imported =
        batch.iter().filter(|request| matches!(request.write.change, Change::Import { .. })).count();
    assert_eq!((batch.len(), imported), (limit, limit / IMPORT_SHARE));
    drop((imports, calls));
}

#[tokio::test]
async fn callers_who_were_refused_are_counted_up_to_the_longest_delay_and_until_nothing_waits() {
    let (queue, receiver) = queue(1);
    let mut now = Instant::now();
    for _ in 0..10 {
        let mut state = queue.state();
        state.forecast.begin_commit(1, now);
        now += Duration::from_secs(1);
        state.forecast.end_commit(now);
    }
    let _waiting = push(&queue).unwrap();
    for _ in 0..100 * receiver.batch_limit() {
        assert!(push(&queue).is_err());
    }
    let counted = queue.state().refused;
    let commits = counted / receiver.batch_limit();
    assert!((9..=11).contains(&commits), "{counted} in commits of {}", receiver.batch_limit());
    assert_eq!(receiver.take().unwrap().len(), 1);
    receiver.committed();
    assert!(receiver.take().unwrap().is_empty());
    let _waiting = push(&queue).unwrap();
    let refused = push(&queue);
    let soon = Duration::from_secs(2);
    assert!(matches!(refused, Err(Error::Overloaded { retry_delay }) if retry_delay < soon), "{refused:?}");
}

#[tokio::test]
async fn who_gives_a_write_less_time_than_a_commit_takes_is_told_how_long_one_takes() {
    let (queue, receiver) = queue(8);
    let now = Instant::now();
    let mut state = queue.state();
    state.forecast.begin_commit(1, now);
    state.forecast.end_commit(now + Duration::from_secs(2));
    // It is about to end.
    state.forecast.begin_commit(1, now.checked_sub(Duration::from_secs(2)).unwrap_or(now));
    drop(state);
    let refused = push_until(&queue, Deadline::at(Instant::now() + Duration::from_secs(1)));
    let commit = Duration::from_secs(2);
    assert!(
        matches!(refused, Err(Error::Overloaded { retry_delay }) if retry_delay >= commit),
        "{refused:?}"
    );
    drop(receiver);
}
