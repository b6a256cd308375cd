//! What is left of users who are deleted: at once nothing but in the change log,
//! and after a purge nothing at all.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    sync::Arc,
};

use crate::{
    database::{name, shared},
    fixtures::{at, create, delete, email, id, repeatable, stored, write},
    imports::fresh_postgres,
};
use rusqlite::Connection;
use tokio::task::block_in_place;
use user_service::{
    domain::{Age, Change, Deadline, Event, Fields, Name, Patch, Store},
    store,
};

/// In every name and address that is to go away.
const MARK: &str = "xmarkx";

/// Fields with the mark in each text. A new field is marked here before this compiles.
fn marked(local: &str) -> Fields {
    Fields { name: Name::parse(MARK).unwrap(), email: email(local), age: Age::parse(36).unwrap() }
}

/// A user who comes, changes, goes, and comes again as somebody else; and one who is
/// only deleted.
async fn come_and_go(store: &Arc<dyn Store>) {
    let marked = |user: &str, local: &str| Change::Create { id: id(user), fields: marked(local) };
    let first = repeatable(marked("one", "first-xmarkx"), 1, MARK);
    store.write(first, Deadline::NONE).await.unwrap();
    let patch = Patch { email: Some(email("second-xmarkx")), ..Patch::default() };
    stored(store, Change::Update { id: id("one"), patch, etag: None }).await;
    stored(store, marked("two", "third-xmarkx")).await;
    for user in ["one", "two"] {
        write(store, delete(user)).await.unwrap();
    }
    stored(store, create("one")).await;
}

fn run_purge(url: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_user-service"));
    command.args(["purge", "--store-url", url]).output().unwrap()
}

fn purge(url: &str) -> String {
    let done = run_purge(url);
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap()
}

/// Whoever reads the log from its beginning finds each revision, and in the end the
/// users that there are.
async fn assert_log_adds_up(store: &Arc<dyn Store>) {
    let entries = store.changes(0, 100, Deadline::NONE).await.unwrap();
    let revisions: Vec<_> = entries.iter().map(|entry| entry.position.revision).collect();
    assert_eq!(revisions, [1, 2, 3, 4, 5, 6]);
    let gone = entries.iter().filter(|entry| matches!(entry.event, Event::Deleted(_)));
    assert_eq!(gone.count(), 5, "{entries:?}");
    // What was recorded of a write is no reason to fail it.
    let again = repeatable(Change::Create { id: id("one"), fields: marked("first-xmarkx") }, 1, MARK);
    assert_eq!(store.write(again, Deadline::NONE).await.unwrap().user, Some(stored_one(store).await));
}

async fn stored_one(store: &Arc<dyn Store>) -> user_service::domain::User {
    crate::fixtures::get(store, "one").await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_users_leave_every_table_of_the_database() {
    let server = block_in_place(shared);
    let config = server.fresh().await;
    let store = block_in_place(|| store::open(&config)).unwrap();
    come_and_go(&store).await;
    let client = server.client(&name(&config)).await;
    let tables = "SELECT relname::text FROM pg_class WHERE relnamespace = 'user_service'::regnamespace
                  AND relkind = 'r' ORDER BY 1";
    let tables: Vec<String> = client.query(tables, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert!(tables.len() >= 4, "{tables:?}");
    let marked = async || {
        let mut marked = Vec::new();
        for table in &tables {
            let any = format!("SELECT 1 FROM user_service.{table} t WHERE t::text LIKE '%{MARK}%'");
            if !client.query(&any, &[]).await.unwrap().is_empty() {
                marked.push(table.clone());
            }
        }
        marked
    };
    assert_eq!(marked().await, ["changes"]);
    let url = format!("postgres://tests@127.0.0.1:{}/{}?sslmode=disable", server.port, name(&config));
    for erased in [3, 0] {
        let said = block_in_place(|| purge(&url));
        assert_eq!(said, format!("{erased} changes of deleted users were erased\n"));
    }
    assert!(marked().await.is_empty());
    assert_log_adds_up(&store).await;
    store.close().await;
}

/// The files of a directory that hold a text. Found by another process: whoever closes a
/// file takes the locks away that `SQLite` has on it in the same process.
pub fn files_with(dir: &Path, text: &str) -> Vec<String> {
    let mut grep = Command::new("grep");
    grep.args(["--recursive", "--text", "--fixed-strings", "--files-with-matches", text]);
    let found = String::from_utf8(grep.arg(dir).output().unwrap().stdout).unwrap();
    found.lines().map(|path| path.rsplit('/').next().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_users_leave_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.db");
    let store = store::open(&at(&path)).unwrap();
    come_and_go(&store).await;
    store.close().await;
    let file = Connection::open(&path).unwrap();
    let found = |sql: &str| file.prepare(sql).unwrap().exists(()).unwrap();
    assert!(found("SELECT 1 FROM changes WHERE after_image LIKE '%xmarkx%'"));
    assert!(!found("SELECT 1 FROM users WHERE name || email LIKE '%xmarkx%'"));
    assert!(!found("SELECT 1 FROM idempotency WHERE CAST(key || payload || id AS TEXT) LIKE '%xmarkx%'"));
    drop(file);
    assert_eq!(files_with(dir.path(), MARK), ["users.db"]);
    let said = block_in_place(|| purge(&format!("sqlite:{}", path.display())));
    assert_eq!(said, "3 changes of deleted users were erased\n");
    assert!(files_with(dir.path(), MARK).is_empty());
    let store = store::open(&at(&path)).unwrap();
    assert_log_adds_up(&store).await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_not_there_is_not_purged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("typo.db");
    let database = fresh_postgres().await;
    for (url, why) in [
        (format!("sqlite:{}", path.display()), "there is no store"),
        (database, "holds no store"),
        ("memory:".into(), "nothing to purge"),
    ] {
        let refused = block_in_place(|| run_purge(&url));
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains(why), "{refused:?}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "none is made");
}
