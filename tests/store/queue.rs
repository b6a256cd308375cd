//! Writes that wait: another program holds the file meanwhile.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use crate::fixtures::{at, create, get, id, plain, stored};
use rusqlite::Connection;
use tempfile::TempDir;
use user_service::{
    config::Config,
    domain::{Deadline, Error, Store},
    store,
};

/// A store with this much room in its queue, and a hold on its file.
fn held(store_queue: usize) -> (TempDir, Arc<dyn Store>, Connection) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.db");
    let store = store::open(&Config { store_queue, ..at(&path) }).unwrap();
    let hold = Connection::open(&path).unwrap();
    hold.execute_batch("BEGIN IMMEDIATE").unwrap();
    (dir, store, hold)
}

#[tokio::test]
async fn a_full_queue_turns_writes_away_and_keeps_the_others() {
    let (_dir, store, hold) = held(2);
    let mut context = Context::from_waker(Waker::noop());
    let mut waiting = Vec::new();
    let refused = loop {
        let mut write =
            Box::pin(store.write(plain(create(&format!("user-{}", waiting.len()))), Deadline::NONE));
        match write.as_mut().poll(&mut context) {
            Poll::Ready(answer) => break answer,
            Poll::Pending => waiting.push(write),
        }
        // The writer may hold a batch of what was waiting before.
        assert!(waiting.len() <= 5, "the queue has no end");
    };
    assert!(matches!(refused, Err(Error::Overloaded { .. })), "{refused:?}");
    hold.execute_batch("COMMIT").unwrap();
    let count = waiting.len();
    for write in waiting {
        write.await.unwrap();
    }
    assert!(get(&store, &format!("user-{}", count - 1)).await.is_some());
    assert!(get(&store, &format!("user-{count}")).await.is_none());
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_not_begun() {
    let (_dir, store, hold) = held(10);
    let mut context = Context::from_waker(Waker::noop());
    {
        let mut given_up = pin!(store.write(plain(create("given-up")), Deadline::NONE));
        assert!(given_up.as_mut().poll(&mut context).is_pending());
    }
    let deadline = Deadline::at(Instant::now() + Duration::from_millis(50));
    let mut late = pin!(store.write(plain(create("late")), deadline));
    assert!(late.as_mut().poll(&mut context).is_pending());
    tokio::time::sleep(deadline.remaining().unwrap()).await;
    hold.execute_batch("COMMIT").unwrap();
    let late = late.await;
    assert!(matches!(late, Err(Error::DeadlineExceeded)), "{late:?}");
    assert_eq!(stored(&store, create("next")).await.revision, 1);
}

#[tokio::test]
async fn a_file_that_is_held_for_long_fails_writes_and_no_reads() {
    let (_dir, store, hold) = held(10);
    let refused = store.write(plain(create("ada")), Deadline::NONE).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    assert_eq!(get(&store, "ada").await, None);
    hold.execute_batch("COMMIT").unwrap();
    assert_eq!(stored(&store, create("ada")).await.revision, 1);
}

#[tokio::test]
async fn the_store_is_measured() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let dir = tempfile::tempdir().unwrap();
    let open = || store::open(&at(&dir.path().join("users.db"))).unwrap();
    let store = metrics::with_local_recorder(&recorder, open);
    stored(&store, create("ada")).await;
    // Just written, so cached; and not there, so looked for in the file.
    assert!(store.get_cached(&id("ada")).is_some());
    get(&store, "bob").await;
    store.close().await;
    let rendered = recorder.handle().render();
    for line in [
        "user_service_store_operation_duration_seconds_count{operation=\"write\"} 1",
        "user_service_store_operation_duration_seconds_count{operation=\"get\"} 1",
        "user_service_store_cache_lookups_total{result=\"hit\"} 1",
        "user_service_store_cache_lookups_total{result=\"miss\"} 1",
        "user_service_store_batch_size_count 1",
        "user_service_store_queue_depth 0",
        "user_service_store_writable 1",
    ] {
        assert!(rendered.lines().any(|rendered| rendered == line), "no {line} in:\n{rendered}");
    }
}
