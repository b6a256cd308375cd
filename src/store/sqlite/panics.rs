//! A panic at each step of a batch in turn, and of the maintenance after it.
//!
//! The writer awaits nothing: a batch is one call of `SQLite` after the other. Its
//! thread is this one here, so that the test can arm its fault points.

use std::time::Duration;

use tokio::{join, runtime::Builder, time};

use super::*;
use crate::{
    domain::{Caller, Change, Fields, Idempotency, Name, RequestId},
    telemetry::testing::recorded,
    util::fault_point::testing::{arm, disarm},
};

/// More steps than a batch has.
const MAX_STEPS: usize = 1_000;

/// Only a writer that is gone takes so long.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);

fn id(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

/// Creates a user, by a request that can be repeated.
async fn create(store: &SqliteStore, name: &str) -> Result<WriteResult, Error> {
    let fields = Fields::example(&format!("{name}@example.com"));
    let fields = Fields { name: Name::parse(name).unwrap(), ..fields };
    let request = RequestId::parse("01890a5d-ac96-774b-bcce-b302099a8057").unwrap();
    let caller = Caller::ANONYMOUS;
    let idempotency = Some(Idempotency::new(&caller, name, request, name.as_bytes()));
    let write = Write { change: Change::Create { id: id(name), fields }, idempotency, validate_only: false };
    time::timeout(ANSWER_TIMEOUT, store.write(write, Deadline::NONE)).await.expect("an answer")
}

/// Whether a user is stored, as each kind of read has it.
async fn is_stored(store: &SqliteStore, name: &str) -> bool {
    let by_id = store.get(&UserKey::Id(id(name)), Deadline::NONE).await.unwrap();
    let cached = store.get_cached(&id(name));
    assert_eq!(by_id, cached, "{name} is cached once it was read");
    let email = Fields::example(&format!("{name}@example.com")).email;
    assert_eq!(by_id, store.get(&UserKey::Email(email), Deadline::NONE).await.unwrap());
    by_id.is_some()
}

/// Two writes of one batch that panics at this step, and one after it; whether the step was
/// not reached.
async fn write_around(store: &SqliteStore, step: usize) -> bool {
    arm(step);
    let told = join!(create(store, "one"), create(store, "two"));
    // The writer goes on with the maintenance, which is due.
    tokio::task::yield_now().await;
    let is_done = disarm();
    for answer in [&told.0, &told.1] {
        let is_true = answer.is_ok() || !is_done && matches!(answer, Err(Error::OutcomeUnknown));
        assert!(is_true, "step {step}: {answer:?}");
    }
    let newest = || *store.inner.newest.borrow();
    assert_eq!(newest(), if is_stored(store, "one").await { 2 } else { 0 }, "step {step}: watches are told");
    let after = create(store, "after").await.unwrap_or_else(|error| panic!("step {step}: {error:?}"));
    let (one, two) = (is_stored(store, "one").await, is_stored(store, "two").await);
    assert_eq!(one, two, "step {step}: half a batch");
    assert!(one || told.0.is_err() && told.1.is_err(), "step {step}: acknowledged and lost");
    assert!(is_stored(store, "after").await);
    // What was unknown is found out by a repeat, which writes once.
    for name in ["one", "two"] {
        create(store, name).await.unwrap_or_else(|error| panic!("step {step}, again: {error:?}"));
    }
    let log = store.changes(0, 10, Deadline::NONE).await.unwrap();
    let revisions: Vec<_> = log.iter().map(|entry| entry.position.revision).collect();
    assert_eq!(revisions, [1, 2, 3], "step {step}: each user once, without a gap");
    assert_eq!(after.revision, if one { 3 } else { 1 }, "step {step}");
    assert_eq!(newest(), 3, "step {step}: watches are told");
    is_done
}

/// Whether the step was not reached.
fn panic_at(step: usize) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let mut is_done = false;
    let gauges = recorded(|| {
        runtime.block_on(async {
            let opened = SqliteStore::prepare(&dir.path().join("users.db"), &Config::default());
            let (inner, writer, receiver) = opened.unwrap();
            let store = SqliteStore { inner: Arc::new(inner) };
            let writing = tokio::spawn(async move { writer.run(&receiver).await });
            is_done = write_around(&store, step).await;
            store.close().await;
            writing.await.expect("the writer outlives a panic");
        });
    });
    let waiting = gauges.iter().find(|line| line.starts_with("user_service_store_queue_depth"));
    assert_eq!(waiting, None, "step {step}: a write has no end");
    let panics = gauges.iter().any(|line| line == "user_service_store_writer_panics_total 1");
    assert_eq!(panics, !is_done, "step {step}: {gauges:?}");
    is_done
}

#[test]
fn a_panic_at_any_step_of_a_batch_costs_that_batch_only() {
    let steps = (1..MAX_STEPS).find(|step| panic_at(*step)).expect("a batch has an end") - 1;
    println!("a panic at each of {steps} steps");
    assert!(steps > 15, "{steps} steps only");
}
