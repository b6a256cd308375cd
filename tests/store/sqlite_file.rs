//! What is in the file, and who may open it.

use std::{
    fs::{self, Permissions},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixListener,
    },
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    fixtures::{at, create, delete, email, get, get_by_email, id, repeatable, stored, write},
    support::TEST_TIMEOUT,
};
use rusqlite::Connection;
use user_service::{
    domain::{Change, Deadline, Error, Patch, Store},
    store::{self, OpenError},
};

fn refusal(path: &Path) -> OpenError {
    store::open(&at(path)).err().expect("the store must not open")
}

#[tokio::test]
async fn users_and_recorded_writes_outlive_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.db");
    let repeated = repeatable(create("ada"), 1, "ada");
    let first = store::open(&at(&path)).unwrap();
    let written = first.write(repeated.clone(), Deadline::NONE).await.unwrap();
    first.close().await;
    let second = store::open(&at(&path)).unwrap();
    assert_eq!(get(&second, "ada").await, written.user);
    assert_eq!(second.write(repeated, Deadline::NONE).await.unwrap(), written);
    assert_eq!(stored(&second, create("bob")).await.revision, 2);
    second.close().await;
    assert!(!path.with_extension("db-wal").exists(), "an orderly end leaves no log");
}

#[tokio::test]
async fn the_change_log_tells_every_write_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("users.db");
    let store = store::open(&at(&file)).unwrap();
    stored(&store, create("ada")).await;
    let patch = Patch { email: Some(email("countess")), ..Patch::default() };
    stored(&store, Change::Update { id: id("ada"), patch, etag: None }).await;
    write(&store, create("ada")).await.unwrap_err();
    write(&store, delete("ada")).await.unwrap();
    store.close().await;
    let file = Connection::open(&file).unwrap();
    let log = "SELECT revision, kind, id, after_image ->> 'email' FROM changes ORDER BY revision";
    let mut log = file.prepare(log).unwrap();
    let rows: Vec<(i64, i64, String, Option<String>)> = log
        .query_map((), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let row = |revision, kind, email: Option<&str>| (revision, kind, "ada".into(), email.map(Into::into));
    let expected =
        [row(1, 1, Some("ada@example.com")), row(2, 2, Some("countess@example.com")), row(3, 3, None)];
    assert_eq!(rows, expected);
}

#[tokio::test]
async fn old_rows_are_cleared_away_and_new_ones_stay() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.db");
    let old = repeatable(create("ada"), 1, "ada");
    let store = store::open(&at(&path)).unwrap();
    store.write(old.clone(), Deadline::NONE).await.unwrap();
    stored(&store, create("cleo")).await;
    store.close().await;
    let day = 24 * 3_600 * 1_000_000i64;
    let file = Connection::open(&path).unwrap();
    file.execute("UPDATE idempotency SET time = time - ?1", (day,)).unwrap();
    file.execute("UPDATE changes SET time = time - ?1", (8 * day,)).unwrap();
    drop(file);

    let store = store::open(&at(&path)).unwrap();
    // Whether or not its row is there still, the write is not known again.
    store.write(old, Deadline::NONE).await.unwrap_err();
    store.write(repeatable(create("bob"), 2, "bob"), Deadline::NONE).await.unwrap();
    store.close().await;
    let file = Connection::open(&path).unwrap();
    let rows = |table: &str| -> String {
        file.query_row(&format!("SELECT group_concat(revision) FROM {table}"), (), |row| row.get(0)).unwrap()
    };
    // The last change that there was stays until there is another: watches stand there.
    let kept = (rows("idempotency"), rows("changes"), rows("users"));
    assert_eq!(kept, ("3".into(), "2,3".into(), "1,3,2".into()), "users are ordered by id");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_does_not_grow_without_end() {
    // In memory: where syncs are slow, checkpoints are rarer.
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let file = dir.path().join("users.db");
    let store = store::open(&at(&file)).unwrap();
    let mut longest = 0;
    for round in 0..300 {
        let writes = (0..10).map(|n| {
            let store = store.clone();
            tokio::spawn(async move { stored(&store, create(&format!("user-{round}-{n}"))).await })
        });
        for write in writes.collect::<Vec<_>>() {
            write.await.unwrap();
        }
        // Whoever reads keeps the state that it read from going away.
        get_by_email(&store, &format!("user-{round}-0")).await;
        longest = longest.max(fs::metadata(file.with_extension("db-wal")).unwrap().len());
    }
    // A checkpoint is due at 4 MiB, and comes after the commit that passed them.
    assert!(longest < 8 << 20, "{longest} bytes");
    store.close().await;
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.db");
    store::migrate(&at(&path)).unwrap();
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let before = fs::read(&path).unwrap();
    let error = refusal(&path);
    assert!(matches!(error, OpenError::Newer { found: 99, .. }), "{error}");
    assert!(error.to_string().contains("users.db"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_foreign_file_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("notes.txt");
    fs::write(&text, "something else altogether, and longer than the header of a database ".repeat(20))
        .unwrap();
    let other = dir.path().join("other.db");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    for path in [text, other] {
        let before = fs::read(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let error = refusal(&path);
        assert!(matches!(error, OpenError::Foreign(_)), "{error}");
        assert!(error.to_string().contains("move the file away"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    }
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = refusal(&dir.path().join("missing/users.db"));
    assert!(matches!(error, OpenError::File { .. }), "{error}");
    assert!(error.to_string().contains("missing/users.db"), "{error}");
}

#[test]
fn a_directory_is_no_store_and_nothing_is_made_next_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users");
    fs::create_dir(&path).unwrap();
    let error = refusal(&path);
    assert!(error.to_string().contains("users is a directory: name a file in it"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn what_is_no_regular_file_is_no_store_and_nothing_is_made_next_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("users.db");
    let _listener = UnixListener::bind(&socket).unwrap();
    let error = refusal(&socket);
    assert!(matches!(error, OpenError::NotAFile(_)) && error.to_string().contains("users.db"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_file_of_two_names_is_refused_by_both() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("users.db"), dir.path().join("other.db"));
    store::migrate(&at(&path)).unwrap();
    fs::hard_link(&path, &other).unwrap();
    for name in [&path, &other] {
        let error = refusal(name);
        assert!(
            matches!(error, OpenError::ManyNames(_)) && error.to_string().contains("find -samefile"),
            "{error}"
        );
    }
    fs::remove_file(&other).unwrap();
    store::open(&at(&path)).unwrap();
}

/// Without it, a program that looks in and ends takes itself for the last one, and removes
/// the log. A descriptor of the file that is closed anywhere in the process gives it up.
#[tokio::test]
async fn an_open_store_holds_the_lock_by_which_other_programs_know_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.db");
    let store = store::open(&at(&path)).unwrap();
    stored(&store, create("ada")).await;
    assert!(get(&store, "ada").await.is_some());
    let inode = format!(":{} ", fs::metadata(&path).unwrap().ino());
    let locks = fs::read_to_string("/proc/locks").unwrap();
    assert!(locks.lines().any(|lock| lock.contains("POSIX") && lock.contains(&inode)), "{inode}:\n{locks}");
    store.close().await;
}

/// Opens a store, does `change` to its files under it, and returns it once writes are off.
async fn changed_under(path: &Path, change: impl FnOnce()) -> Arc<dyn Store> {
    let store = store::open(&at(path)).unwrap();
    stored(&store, create("ada")).await;
    change();
    let refused = write(&store, create("lost")).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    assert!(!store.probe().await.writes);
    store
}

#[tokio::test]
async fn a_store_whose_file_was_replaced_acknowledges_no_write_and_leaves_the_new_file_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (path, newer) = (dir.path().join("users.db"), dir.path().join("newer.db"));
    let other = store::open(&at(&newer)).unwrap();
    stored(&other, create("bob")).await;
    let log = |path: &Path| path.with_extension("db-wal");
    let store = changed_under(&path, || {
        // With its log, as of a store that was not closed.
        fs::remove_file(log(&path)).unwrap();
        fs::copy(log(&newer), log(&path)).unwrap();
        fs::copy(&newer, dir.path().join("copy.db")).unwrap();
        fs::rename(dir.path().join("copy.db"), &path).unwrap();
    })
    .await;
    store.close().await;
    other.close().await;
    let reopened = store::open(&at(&path)).unwrap();
    assert!(get(&reopened, "bob").await.is_some() && get(&reopened, "ada").await.is_none());
    reopened.close().await;
}

#[tokio::test]
async fn a_store_whose_file_or_log_was_removed_acknowledges_no_write() {
    for extension in ["db", "db-wal"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.db");
        let store = changed_under(&path, || fs::remove_file(path.with_extension(extension)).unwrap()).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_store_without_writes_notices_that_its_file_was_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.db");
    let store = store::open(&at(&path)).unwrap();
    assert!(store.probe().await.writes);
    fs::remove_file(&path).unwrap();
    let until = Instant::now() + TEST_TIMEOUT;
    while store.probe().await.writes {
        assert!(Instant::now() < until, "writes are still possible");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    store.close().await;
}

#[test]
fn migrating_twice_is_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let config = at(&dir.path().join("users.db"));
    store::migrate(&config).unwrap();
    store::migrate(&config).unwrap();
    store::open(&config).unwrap();
}

#[test]
fn nobody_else_may_read_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.db");
    let _store = store::open(&at(&path)).unwrap();
    for name in ["users.db", "users.db-wal", "users.db.lock"] {
        let mode = fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name} has mode {mode:o}");
    }
}

#[test]
fn a_file_that_everybody_may_read_is_made_private() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.db");
    store::migrate(&at(&path)).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o664)).unwrap();
    let _store = store::open(&at(&path)).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660, "the group is the operator's to choose");
}
