//! A panic at each step of a write in turn.

use std::panic::{AssertUnwindSafe, catch_unwind};

use futures_util::FutureExt;

use super::*;
use crate::{
    domain::{Caller, Change, Fields, Patch, RequestId},
    util::fault_point::testing::{arm, disarm},
};

/// More steps than a write has.
const MAX_STEPS: usize = 1_000;

const OLD: &str = "old@example.com";
const NEW: &str = "new@example.com";

fn ada() -> UserId {
    UserId::parse("ada").unwrap()
}

fn create() -> Change {
    Change::Create { id: ada(), fields: Fields::example(OLD) }
}

fn move_address() -> Change {
    let email = Some(Email::parse(NEW).unwrap());
    Change::Update { id: ada(), patch: Patch { email, ..Patch::default() }, etag: None }
}

fn delete() -> Change {
    Change::Delete { id: ada(), etag: None, allow_missing: false }
}

/// What comes of a future that waits for nothing.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("nothing to wait for")
}

/// Makes a change by a request that can be repeated.
fn write(store: &MemoryStore, change: Change) -> Result<WriteResult, Error> {
    let request = RequestId::parse("01890a5d-ac96-774b-bcce-b302099a8057").unwrap();
    let kind = format!("{change:?}");
    let idempotency = Some(Idempotency::new(&Caller::ANONYMOUS, &kind, request, kind.as_bytes()));
    let write = Write { change, idempotency, validate_only: false };
    now(Store::write(store, write, Deadline::NONE))
}

/// The address of the user as each kind of read has it.
fn address(store: &MemoryStore) -> Option<String> {
    let get = |key: &UserKey| now(store.get(key, Deadline::NONE)).unwrap();
    let by_id = get(&UserKey::Id(ada()));
    let by_email: Vec<_> =
        [OLD, NEW].iter().filter_map(|email| get(&UserKey::Email(Email::parse(email).unwrap()))).collect();
    assert_eq!(by_id.iter().collect::<Vec<_>>(), by_email.iter().collect::<Vec<_>>());
    by_id.map(|user| user.fields.email.as_str().to_owned())
}

/// Makes the changes, the last one with a panic at this step; whether the step was not reached.
fn panic_at(step: usize, changes: &[Change]) -> bool {
    let store = MemoryStore::new(&Config::default());
    let (last, first) = changes.split_last().unwrap();
    for change in first {
        write(&store, change.clone()).unwrap();
    }
    let before = address(&store);
    arm(step);
    let told = catch_unwind(AssertUnwindSafe(|| write(&store, last.clone())));
    let is_done = disarm();
    assert_eq!(told.is_ok(), is_done, "step {step}");
    let health = now(store.probe());
    assert!(health.reads && health.writes, "step {step}: {health:?}");
    let revisions = || -> Vec<_> {
        let log = now(store.changes(0, 10, Deadline::NONE)).unwrap();
        log.iter().map(|entry| entry.position.revision).collect()
    };
    let is_made = revisions().len() == changes.len();
    assert!(is_made || revisions().len() == first.len(), "step {step}: {:?}", revisions());
    assert_eq!(*store.newest.borrow(), revisions().len() as u64, "step {step}: watches are told");
    assert_eq!(address(&store) != before, is_made, "step {step}: half a write");
    // What was unknown is found out by a repeat, which writes once.
    let again = write(&store, last.clone()).unwrap_or_else(|error| panic!("step {step}, again: {error:?}"));
    assert_eq!(again.revision, changes.len() as u64, "step {step}");
    assert_ne!(address(&store), before, "step {step}");
    let all: Vec<_> = (1..=changes.len() as u64).collect();
    assert_eq!(revisions(), all, "step {step}: without a gap");
    let state = store.state.read().unwrap();
    assert_eq!(state.recorded.len(), state.recorded_at.len(), "step {step}");
    is_done
}

#[test]
fn a_panic_at_any_step_of_a_write_costs_that_call_only() {
    for changes in [&[create()][..], &[create(), move_address()], &[create(), delete()]] {
        let steps = (1..MAX_STEPS).find(|step| panic_at(*step, changes)).expect("a write has an end") - 1;
        println!("a panic at each of {steps} steps");
        assert!(steps > 8, "{steps} steps only");
    }
}
