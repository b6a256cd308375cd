//! Copies of all files of a store at one instant, as a snapshot of its volume is.

use std::{collections::BTreeSet, env, fs, path::Path, time::Instant};

use crate::{
    creators::Creators,
    fixtures::at,
    imports::serve,
    support::{Server, TEST_TIMEOUT},
};
use tokio::task::block_in_place;
use user_service::{
    domain::{Deadline, PageSize},
    store,
};

/// Stops the process in the middle of whatever it does, copies its files, and lets it go
/// on. `SNAPSHOTS` says how often.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_volume_at_any_moment_opens_with_every_acknowledged_user() {
    let snapshots = env::var("SNAPSHOTS").map_or(30, |count| count.parse().expect("SNAPSHOTS is a number"));
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = serve(&format!("sqlite:{}", dir.path().join("users.db").display())).await;
    let creators = Creators::start(&client);
    for round in 0..snapshots {
        // On all moments of the life of a log, checkpoints among them.
        creators.more(10 + round * 37 % 300).await;
        let copy = tempfile::tempdir().unwrap();
        stop(&server);
        // Whoever is answered by now was answered before the copy.
        let acknowledged = creators.acknowledged();
        copy_files(dir.path(), copy.path());
        server.signal("CONT");
        let users = users(&copy.path().join("users.db")).await;
        assert!(users.is_superset(&acknowledged), "{round}: {} of {}", users.len(), acknowledged.len());
    }
    creators.stop().await;
    assert!(block_in_place(|| server.stop()).success());
}

fn stop(server: &Server) {
    server.signal("STOP");
    // One that is within a system call ends it first.
    let tasks = format!("/proc/{}/task", server.pid());
    let is_stopped = || {
        fs::read_dir(&tasks).unwrap().all(|task| {
            let stat = fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
            stat.rsplit(')').next().unwrap().starts_with(" T")
        })
    };
    let end = Instant::now() + TEST_TIMEOUT;
    while !is_stopped() {
        assert!(Instant::now() < end, "the server does not stop");
        std::thread::yield_now();
    }
}

fn copy_files(from: &Path, to: &Path) {
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// The users of a copy, which holds the history that led to them without a gap.
async fn users(file: &Path) -> BTreeSet<String> {
    let store = store::open(&at(file)).unwrap();
    let mut users = BTreeSet::new();
    let mut last = None;
    loop {
        let page = store.list(last.as_ref(), PageSize::at_most(1_000), Deadline::NONE).await.unwrap();
        last = page.users.last().map(|user| user.id.clone());
        users.extend(page.users.into_iter().map(|user| user.id.as_str().to_owned()));
        if !page.more {
            break;
        }
    }
    let head = store.log_head(Deadline::NONE).await.unwrap();
    assert_eq!(head.newest.revision, users.len() as u64, "each create is one revision");
    store.close().await;
    users
}
