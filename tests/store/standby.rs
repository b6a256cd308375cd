//! Commits that wait for a standby.

use std::time::{Duration, Instant};

use crate::{
    database::Database,
    fixtures::{create, repeatable},
    support::TEST_TIMEOUT,
};
use tokio::{task::block_in_place, time};
use user_service::{
    config::Config,
    domain::{Deadline, Error},
    store,
};

/// A commit whose wait for a standby is cancelled succeeds with a warning. Neither
/// it nor a repeat of it is acknowledged until standbys have it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_standby_has_confirmed_is_not_acknowledged() {
    let server = block_in_place(Database::start);
    let config = Config { store_timeout: Duration::from_secs(2), ..server.fresh().await };
    let store = block_in_place(|| store::open(&config)).unwrap();
    let ada = || repeatable(create("ada"), 1, "ada");
    server.wait_at_commits_for("nobody").await;
    let writing = tokio::spawn({
        let store = store.clone();
        async move { store.write(ada(), Deadline::NONE).await }
    });
    let client = server.client("postgres").await;
    let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    let until = Instant::now() + TEST_TIMEOUT;
    while client.query(cancel, &[]).await.unwrap().is_empty() {
        assert!(Instant::now() < until, "no commit waits");
        time::sleep(Duration::from_millis(10)).await;
    }
    let answer = writing.await.unwrap();
    assert!(matches!(answer, Err(Error::OutcomeUnknown)), "{answer:?}");
    let repeated = store.write(ada(), Deadline::NONE).await;
    assert!(matches!(repeated, Err(Error::Unavailable(_) | Error::OutcomeUnknown)), "{repeated:?}");

    server.wait_at_commits_for("").await;
    let until = Instant::now() + TEST_TIMEOUT;
    let written = loop {
        match store.write(ada(), Deadline::NONE).await {
            Ok(written) => break written,
            Err(error) => assert!(Instant::now() < until, "{error:?}"),
        }
        time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(written.revision, 1, "it was written once");
    store.close().await;
}
