//! What the store does with its disk, seen from below with strace: commits are
//! synced before they are answered, and a disk that fails is not trusted.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::{
    fixtures::{at, create, get, get_by_email, write},
    strace, subprocess,
};
use tempfile::TempDir;
use user_service::store::{self, OpenError};

/// The file that commits are appended to.
const LOG: &[&str] = &["users.db-wal"];

/// What a child said, and what it did to its store.
struct Seen {
    dir: TempDir,
    said: Vec<(f64, String)>,
    trace: String,
}

impl Seen {
    fn file(&self) -> PathBuf {
        self.dir.path().join("users.db")
    }

    fn users(&self, what: &str) -> Vec<&str> {
        self.said.iter().filter_map(|(_, said)| said.strip_prefix(what)?.strip_prefix(' ')).collect()
    }

    fn said(&self, what: &str) -> bool {
        self.said.iter().any(|(_, said)| said == what)
    }
}

/// Runs a child under strace, with `inject` done to these files, on a new store.
fn trace(role: &str, files: &[&str], inject: &[&str]) -> Seen {
    let dir = tempfile::tempdir().unwrap();
    if role != "creates_without_syncing" {
        // So that opening it syncs nothing, and what is counted are commits.
        store::migrate(&at(&dir.path().join("users.db"))).unwrap();
    }
    trace_on(dir, role, files, inject)
}

/// The same on the store in this directory.
fn trace_on(dir: TempDir, role: &str, files: &[&str], inject: &[&str]) -> Seen {
    let path = |name: &str| fs::canonicalize(dir.path()).unwrap().join(name).to_str().unwrap().to_owned();
    let (file, output) = (path("users.db"), path("trace"));
    let files: Vec<_> = files.iter().map(|name| path(name)).collect();
    let files: Vec<_> = files.iter().map(String::as_str).collect();
    let wrapper = strace::arguments(&output, &files, inject);
    let wrapper: Vec<_> = wrapper.iter().map(String::as_str).collect();
    let child = subprocess::command(role, Path::new(&file), &wrapper).output().expect("strace is installed");
    let text = String::from_utf8(child.stderr).unwrap();
    let said: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(time, said)| Some((time.parse().ok()?, said.to_owned())))
        .collect();
    let trace = fs::read_to_string(&output).unwrap();
    let seen = Seen { dir, said, trace };
    assert!(child.status.success() && seen.said("done"), "{text}\n{}", seen.trace);
    seen
}

fn answers(seen: &Seen) -> Vec<f64> {
    seen.said.iter().filter(|(_, said)| said.starts_with("created ")).map(|(time, _)| *time).collect()
}

#[test]
fn every_answer_follows_a_sync_of_the_log() {
    let seen = trace("creates_one_by_one", LOG, &[]);
    assert_eq!(answers(&seen).len(), subprocess::USERS);
    assert!(strace::unsynced(&seen.trace, &answers(&seen)).is_empty(), "{}", seen.trace);
}

#[test]
fn a_commit_that_is_not_synced_is_caught() {
    let seen = trace("creates_without_syncing", LOG, &[]);
    assert_eq!(answers(&seen).len(), subprocess::USERS);
    assert!(!strace::unsynced(&seen.trace, &answers(&seen)).is_empty(), "{}", seen.trace);
}

/// Every user that was acknowledged is there after a restart; one whose outcome
/// was unknown is there whole or not at all, and no other is.
async fn assert_kept(seen: &Seen) {
    let store = store::open(&at(&seen.file())).unwrap();
    for n in 0..subprocess::USERS {
        let name = format!("user-{n}");
        let user = get(&store, &name).await;
        assert_eq!(user, get_by_email(&store, &name).await);
        if seen.users("created").contains(&name.as_str()) {
            assert!(user.is_some(), "{name} was acknowledged");
        } else if !seen.users("unknown").contains(&name.as_str()) {
            assert!(user.is_none(), "{name} was not applied");
        }
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_sync_writes_are_off_until_a_restart() {
    let seen = trace("creates_one_by_one", LOG, &["inject=fsync,fdatasync:error=EIO:when=5"]);
    assert_eq!(seen.users("unknown").len(), 1, "{:?}", seen.said);
    assert!(seen.said("off") && !seen.said("back"), "{:?}", seen.said);
    let (created, unavailable) = (seen.users("created"), seen.users("unavailable"));
    assert!(
        !created.is_empty() && created.len() + unavailable.len() + 1 == subprocess::USERS,
        "{:?}",
        seen.said
    );
    let after = seen.trace.split_once("INJECTED").expect("a sync failed").1;
    assert!(!after.contains("sync("), "a failed sync is never tried again:\n{after}");
    assert_kept(&seen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_writes_come_back_by_themselves() {
    // The create fails, then the first probe; the second one gets through.
    let seen = trace("creates_one_by_one", LOG, &["inject=pwrite64:error=ENOSPC:when=20..21"]);
    assert_eq!(seen.trace.matches("INJECTED").count(), 2, "{}", seen.trace);
    assert_eq!((seen.users("unavailable").len(), seen.users("unknown").len()), (1, 0), "{:?}", seen.said);
    assert!(seen.said("back"), "{:?}", seen.said);
    assert_eq!(seen.users("created").len(), subprocess::USERS - 1);
    assert_kept(&seen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_was_full_has_room_for_more_than_a_probe_before_writes_come_back() {
    // The create fails. Then there is no room twice, where a small write would work.
    let files = &["users.db-wal", "users.db.room"];
    let inject = ["inject=pwrite64:error=ENOSPC:when=20", "inject=write:error=ENOSPC:when=1..2"];
    let seen = trace("creates_one_by_one", files, &inject);
    assert_eq!(seen.trace.matches("INJECTED").count(), 3, "{}", seen.trace);
    let between = seen.trace.split("INJECTED").nth(2).unwrap();
    assert!(!between.contains("pwrite64("), "no write was let in between:\n{between}");
    assert_eq!(seen.users("unavailable").len(), 1, "{:?}", seen.said);
    assert!(seen.said("back") && !seen.file().with_extension("db.room").exists(), "{:?}", seen.said);
    assert_kept(&seen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_takes_the_log_that_there_is_before_writes_come_back() {
    // The create fails, and then what the probe moves from the log to the file.
    let files = &["users.db-wal", "users.db"];
    let seen = trace("creates_one_by_one", files, &["inject=pwrite64:error=ENOSPC:when=20..21"]);
    let injected: Vec<_> = seen.trace.lines().filter(|line| line.contains("INJECTED")).collect();
    assert_eq!(injected.len(), 2, "{}", seen.trace);
    assert!(injected[0].contains("users.db-wal>") && injected[1].contains("users.db>"), "{injected:?}");
    assert_eq!(seen.users("unavailable").len(), 1, "{:?}", seen.said);
    assert!(seen.said("back"), "{:?}", seen.said);
    assert_kept(&seen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_opens_on_a_full_disk_with_the_log_that_it_was_left_with() {
    let dir = tempfile::tempdir().unwrap();
    let (left, path) = (dir.path().join("left.db"), dir.path().join("users.db"));
    let store = store::open(&at(&left)).unwrap();
    write(&store, create("ada")).await.unwrap();
    for suffix in ["", "-wal"] {
        let beside = |path: &Path| format!("{}{suffix}", path.display());
        fs::copy(beside(&left), beside(&path)).unwrap();
    }
    store.close().await;
    let files = &["users.db-wal", "users.db"];
    // Nothing goes into the file, which the log would make longer.
    let seen = trace_on(dir, "opens", files, &["inject=pwrite64:error=ENOSPC:when=1+"]);
    // What the log holds may never have been synced before.
    let after = seen.trace.split("INJECTED").nth(1).expect("it is full");
    let is_synced = |line: &str| line.contains("sync(") && line.contains("users.db-wal>");
    assert!(after.lines().any(is_synced), "{}", seen.trace);
    let store = store::open(&at(&seen.file())).unwrap();
    assert!(get(&store, "ada").await.is_some());
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_come_back_where_the_disk_was_full_for_clearing() {
    let dir = tempfile::tempdir().unwrap();
    let store = store::open(&at(&dir.path().join("users.db"))).unwrap();
    for n in 0..10 {
        write(&store, create(&format!("older-{n}"))).await.unwrap();
    }
    store.close().await;
    // What the log is given first is the change log cleared.
    let seen = trace_on(dir, "creates_after_clearing", LOG, &["inject=pwrite64:error=ENOSPC:when=1"]);
    assert_eq!(seen.trace.matches("INJECTED").count(), 1, "{}", seen.trace);
    assert!(seen.said("back"), "{:?}", seen.said);
    assert_eq!(seen.users("created").len(), subprocess::USERS);
    assert_kept(&seen).await;
}

#[test]
fn commits_go_on_while_a_slow_disk_is_given_a_checkpoint() {
    let seen = trace("creates_in_batches", LOG, &["inject=fsync,fdatasync:delay_exit=40000"]);
    // The writer's, before the checkpoint and after it, and that of the checkpoint itself.
    let threads = strace::syncing_threads(&seen.trace);
    let is_between = |thread: &&str| *thread != threads[0] && threads.last() == Some(&threads[0]);
    assert!(threads.iter().any(is_between), "{threads:?}");
}

#[test]
fn a_second_process_is_turned_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.db");
    let mut holder = subprocess::command("holds_the_store", &path, &[]).spawn().unwrap();
    let mut lines = BufReader::new(holder.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.ends_with(" open")), "the holder opens the store");
    let link = dir.path().join("link-to-users.db");
    symlink(&path, &link).unwrap();
    for refused in [
        store::open(&at(&path)).err(),
        store::open(&at(&link)).err(),
        store::migrate(&at(&path)).err(),
        store::migrate(&at(&link)).err(),
    ] {
        let error = refused.expect("the store is in use");
        assert!(matches!(error, OpenError::InUse(_)), "{error}");
        assert!(error.to_string().contains("users.db") && error.to_string().contains("stop that process"));
    }
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
    store::open(&at(&path)).unwrap();
}
