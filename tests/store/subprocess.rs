//! Processes of their own: this very test binary, told to run one of the ignored
//! tests below.

use std::{
    env,
    io::{Read, stdin},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    fixtures::{at, create, get, stored, write},
    slow_reads,
};
use futures_util::future::join_all;
use rusqlite::Connection;
use user_service::{
    config::Config,
    domain::{Error, Store},
    store,
};

const FILE: &str = "STORE_TEST_FILE";

/// How many users a child creates.
pub const USERS: usize = 20;

/// The command that runs a role on a file, perhaps under `wrapper`.
pub fn command(role: &str, file: &Path, wrapper: &[&str]) -> Command {
    let exe = env::current_exe().unwrap();
    let mut command = match wrapper {
        [] => Command::new(exe),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(exe);
            command
        }
    };
    // The path of a test in its binary begins behind the crate's name.
    let module = module_path!().split_once("::").map_or("", |(_, module)| module);
    command.args(["--ignored", "--exact", "--nocapture", &format!("{module}::{role}")]);
    command.env(FILE, file).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// The file that a parent named, if there is a parent.
fn file() -> Option<PathBuf> {
    env::var_os(FILE).map(PathBuf::from)
}

/// A line for the parent, with the time in seconds in front.
fn say(what: &str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    eprintln!("{}.{:06} {what}", now.as_secs(), now.subsec_micros());
}

#[test]
#[ignore = "a process that other tests start"]
fn holds_the_store() {
    let Some(file) = file() else { return };
    let _store = store::open(&at(&file)).unwrap();
    say("open");
    stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// Opens a store, reads, and closes it.
#[tokio::test]
#[ignore = "a process that other tests start"]
async fn opens() {
    let Some(file) = file() else { return };
    let store = store::open(&at(&file)).unwrap();
    assert!(store.probe().await.reads);
    store.close().await;
    say("done");
}

/// Says what became of each create. Where writes are turned away, waits a little
/// for them to come back, once.
#[tokio::test]
#[ignore = "a process that other tests start"]
async fn creates_one_by_one() {
    let Some(file) = file() else { return };
    create_one_by_one(&store::open(&at(&file)).unwrap()).await;
}

/// The same once a change log that is too long has not been cleared.
#[tokio::test]
#[ignore = "a process that other tests start"]
async fn creates_after_clearing() {
    let Some(file) = file() else { return };
    let store = store::open(&Config { change_log_rows: 1, ..at(&file) }).unwrap();
    until_writes_are(&store, false).await;
    await_writes(&store).await;
    create_one_by_one(&store).await;
}

async fn create_one_by_one(store: &Arc<dyn Store>) {
    let mut waited = false;
    let mut created = Vec::new();
    for n in 0..USERS {
        let name = format!("user-{n}");
        match write(store, create(&name)).await {
            Ok(_) => {
                say(&format!("created {name}"));
                created.push(name);
            }
            Err(Error::OutcomeUnknown) => say(&format!("unknown {name}")),
            Err(Error::Unavailable(_)) => say(&format!("unavailable {name}")),
            Err(error) => panic!("{error}"),
        }
        let probe = store.probe().await;
        assert!(probe.reads, "reads go on");
        if !probe.writes && !waited {
            waited = true;
            await_writes(store).await;
        }
    }
    for name in created {
        assert!(get(store, &name).await.is_some(), "{name} was acknowledged");
    }
    store.close().await;
    say("done");
}

/// Says whether writes come back.
async fn await_writes(store: &Arc<dyn Store>) {
    until_writes_are(store, true).await;
    say(if store.probe().await.writes { "back" } else { "off" });
}

/// Waits until writes are on, or off, and not for long.
async fn until_writes_are(store: &Arc<dyn Store>, on: bool) {
    let until = Instant::now() + Duration::from_secs(4);
    while store.probe().await.writes != on && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Creates users in batches, until the log is longer than one that is left alone.
#[tokio::test]
#[ignore = "a process that other tests start"]
async fn creates_in_batches() {
    let Some(file) = file() else { return };
    let store = store::open(&at(&file)).unwrap();
    for round in 0..100 {
        let names: Vec<_> = (0..200).map(|n| format!("user-{round}-{n}")).collect();
        join_all(names.iter().map(|name| stored(&store, create(name)))).await;
    }
    store.close().await;
    say("done");
}

/// What the store must never do: commits that are not synced.
#[test]
#[ignore = "a process that other tests start"]
fn creates_without_syncing() {
    let Some(file) = file() else { return };
    let connection = Connection::open(&file).unwrap();
    connection
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; CREATE TABLE t (x)")
        .unwrap();
    for n in 0..USERS {
        connection.execute("INSERT INTO t VALUES (?1)", (format!("user-{n}"),)).unwrap();
        say(&format!("created user-{n}"));
    }
    say("done");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a process that other tests start"]
async fn lists_more_than_it_can() {
    let Some(file) = file() else { return };
    slow_reads::list_more_than_can_be_read(&file).await;
}
