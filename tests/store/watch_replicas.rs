//! Watches of several replicas, of restored stores, and of logs that are cleared.

use std::{
    env, fs,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    database::{name, shared},
    fixtures::at,
    support::TEST_TIMEOUT,
    watches::{Folded, ROOMY, Running, begin, busy, next, resume_at_random, table, users, users_named},
};
use tokio::{
    sync::oneshot,
    task::{block_in_place, spawn_blocking},
};
use user_service::{
    config::{Config, StoreUrl},
    domain::{Deadline, Error, ResumeToken, Store},
    feed::{Item, Watch, WatchError},
    store,
};

/// `WATCH_CHANGES` says how many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_resumed_on_any_replica_neither_skips_nor_repeats() {
    let changes = env::var("WATCH_CHANGES").map_or(1_600, |changes| changes.parse().expect("a number"));
    let config = block_in_place(shared).fresh().await;
    let stores = open_all(&[&config, &config, &config]).await;
    let (stop, stopped) = oneshot::channel();
    let slow = tokio::spawn(read_slowly(stores[0].clone(), stopped));
    resume_at_random(&stores, changes).await;
    stop.send(stores[0].log_head(Deadline::NONE).await.unwrap().newest.revision).unwrap();
    assert!(slow.await.unwrap().users == table(&stores[0]).await, "who reads slowly misses nothing");
    for store in stores {
        store.close().await;
    }
}

/// Reads a message a second, until it is told how far to go at its own pace; is
/// cut meanwhile, or lags behind, and costs no more than the small buffer.
async fn read_slowly(store: Arc<dyn Store>, mut stopped: oneshot::Receiver<u64>) -> Folded {
    let running = Running::start(&store, 64 << 10);
    let mut watch = begin(&running.feed, None).await.unwrap();
    let mut folded = Folded::default();
    let newest = loop {
        match next(&mut watch).await {
            Ok(item) => folded.take(item),
            Err(WatchError::TooSlow) => watch = begin(&running.feed, Some(watch.token())).await.unwrap(),
            Err(end) => panic!("{end:?}"),
        }
        if let Ok(newest) = tokio::time::timeout(Duration::from_secs(1), &mut stopped).await {
            break newest.unwrap();
        }
    };
    while folded.revision.is_none_or(|last| last < newest) {
        match next(&mut watch).await {
            Ok(item) => folded.take(item),
            Err(WatchError::TooSlow) => watch = begin(&running.feed, Some(watch.token())).await.unwrap(),
            Err(end) => panic!("{end:?}"),
        }
    }
    folded
}

async fn open_all(configs: &[&Config]) -> Vec<Arc<dyn Store>> {
    let mut opened = Vec::new();
    for config in configs {
        let config = (*config).clone();
        opened.push(spawn_blocking(move || store::open(&config).unwrap()).await.unwrap());
    }
    opened
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_on_all_replicas_are_told_the_same_in_the_same_order() {
    let config = block_in_place(shared).fresh().await;
    let stores = open_all(&[&config, &config, &config]).await;
    let feeds: Vec<_> = stores.iter().map(|store| Running::start(store, ROOMY)).collect();
    let mut watches = Vec::new();
    for running in &feeds {
        watches.push(Watch::begin(&running.feed, false, None, Deadline::NONE).await.unwrap());
    }
    let writing = busy(&stores, 800);
    let mut told = Vec::new();
    for mut watch in watches {
        let mut entries = Vec::new();
        while entries.len() < 800 {
            if let Item::Change(entry) = next(&mut watch).await.unwrap() {
                entries.push(entry);
            }
        }
        told.push(entries);
    }
    assert_eq!(writing.await.unwrap(), 800);
    assert!(told.iter().all(|entries| *entries == told[0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_a_file_that_was_restored_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (path, backup) = (dir.path().join("users.db"), dir.path().join("backup.db"));
    let store = store::open(&at(&path)).unwrap();
    users_named(&store, "old", 5).await;
    store.close().await;
    fs::copy(&path, &backup).unwrap();
    let store = store::open(&at(&path)).unwrap();
    let lost = told_of_new(&store).await;
    store.close().await;
    fs::copy(&backup, &path).unwrap();
    refused_after_restore(&store::open(&at(&path)).unwrap(), lost).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_a_database_that_was_restored_is_refused() {
    let server = block_in_place(shared);
    let config = server.fresh().await;
    let store = open_all(&[&config]).await.remove(0);
    users_named(&store, "old", 5).await;
    store.close().await;
    let restored = format!("restored_{}", name(&config));
    // All that is in it, as a backup would have it.
    let copy = format!("CREATE DATABASE {restored} TEMPLATE {}", name(&config));
    server.client("postgres").await.batch_execute(&copy).await.unwrap();
    let stores = open_all(&[&config, &server.config("tests", &restored)]).await;
    let lost = told_of_new(&stores[0]).await;
    refused_after_restore(&stores[1], lost).await;
}

/// Changes that the backup does not have, and the token behind them.
async fn told_of_new(store: &Arc<dyn Store>) -> ResumeToken {
    let running = Running::start(store, ROOMY);
    let mut watch = begin(&running.feed, None).await.unwrap();
    users_named(store, "lost", 5).await;
    let mut folded = Folded::default();
    folded.follow(&mut watch, 10).await;
    watch.token()
}

async fn refused_after_restore(store: &Arc<dyn Store>, lost: ResumeToken) {
    let running = Running::start(store, ROOMY);
    // Ahead of the store, and then no longer ahead, but of another history.
    for round in 0..3 {
        let refused = begin(&running.feed, Some(lost.clone())).await.err();
        assert!(matches!(refused, Some(Error::ResumeTokenExpired)), "round {round}: {refused:?}");
        users_named(store, &format!("round-{round}"), 5).await;
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_ends_whose_log_is_cleared_away_while_it_scans() {
    let config = Config { store_url: StoreUrl::Memory, change_log_rows: 1_000, ..Config::default() };
    let store = store::open(&config).unwrap();
    users(&store, 200).await;
    let running = Running::start(&store, ROOMY);
    let mut watch = begin(&running.feed, None).await.unwrap();
    let mut folded = Folded::default();
    folded.take(next(&mut watch).await.unwrap());
    users_named(&store, "more", 1_100).await;
    let end = loop {
        match next(&mut watch).await {
            Ok(item) => folded.take(item),
            Err(end) => break end,
        }
    };
    assert!(matches!(end, WatchError::Failed(Error::ResumeTokenExpired)), "{end:?}");
    assert_eq!((folded.users.len(), folded.caught_up), (200, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_refused_once_what_follows_it_was_cleared_away() {
    let dir = tempfile::tempdir().unwrap();
    let database = block_in_place(shared).fresh().await;
    let memory = Config { store_url: StoreUrl::Memory, ..Config::default() };
    for config in [memory, at(&dir.path().join("users.db")), database] {
        let config = Config { change_log_rows: 1_000, ..config };
        let mut store = open_all(&[&config]).await.remove(0);
        users_named(&store, "first", 1).await;
        let running = Running::start(&store, ROOMY);
        let old = begin(&running.feed, None).await.unwrap().token();
        users(&store, 600).await;
        let mut young = begin(&running.feed, None).await.unwrap();
        while !matches!(next(&mut young).await.unwrap(), Item::CaughtUp) {}
        let young = young.token();
        for n in 0..6 {
            users_named(&store, &format!("more-{n}"), 100).await;
        }
        if config.store_url != StoreUrl::Memory {
            // Old rows are looked for when a store is opened, and then now and then.
            store.close().await;
            store = open_all(&[&config]).await.remove(0);
        }
        let oldest = || async {
            store.changes(0, 1, Deadline::NONE).await.unwrap().first().unwrap().position.revision
        };
        let until = Instant::now() + TEST_TIMEOUT;
        while oldest().await < 201 {
            assert!(Instant::now() < until, "the log still begins with {}", oldest().await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let running = Running::start(&store, ROOMY);
        begin(&running.feed, Some(young)).await.expect("what follows is there");
        let refused = begin(&running.feed, Some(old)).await.err();
        assert!(matches!(refused, Some(Error::ResumeTokenExpired)), "{refused:?}");
        store.close().await;
    }
}
