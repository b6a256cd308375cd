//! Files and tables that other programs hold: what health says, what purge says, and what
//! becomes of the log.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use crate::{
    database,
    erasure::files_with,
    fixtures::{at, create, delete, stored, write},
    imports::{Client, fresh_postgres, serve},
    postgres_connection_metrics::{until, value},
    readiness::serves,
    support::{Server, TEST_TIMEOUT},
};
use rusqlite::Connection;
use tokio::task::block_in_place;
use tonic::Code;
use user_service::{
    config::Config,
    proto::user::v1::{CreateUserRequest, GetUserRequest, User, get_user_request::Key},
    store,
};

const WRITABLE: &str = "user_service_store_writable";

fn user(name: &str) -> CreateUserRequest {
    let user = User { name: name.into(), email: format!("{name}@example.com"), age: 36, ..User::default() };
    CreateUserRequest { user: Some(user), ..CreateUserRequest::default() }
}

async fn is_found(client: &mut Client, name: &str) -> bool {
    let key = Some(Key::Email(format!("{name}@example.com")));
    client.get_user(GetUserRequest { key }).await.is_ok()
}

/// Waits until metrics and health say whether the store takes writes.
async fn takes_writes(server: &Server, expected: bool) {
    let value_is = |page: &str| value(page, WRITABLE) > 0.5;
    block_in_place(|| until(server.admin_addr, "writable", &|page| value_is(page) == expected));
    let end = Instant::now() + TEST_TIMEOUT;
    while serves(server, "user.v1.UserService").await != expected {
        assert!(Instant::now() < end, "health of the API does not become {expected}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(serves(server, "").await, "reads go on");
}

/// What an idle server says of its store while another program holds it. No write is sent
/// to it meanwhile: it has to find out by itself.
async fn is_found_out(url: &str, hold: impl AsyncFnOnce(), end: impl AsyncFnOnce()) {
    let (server, mut client) = serve(url).await;
    client.create_user(user("ada")).await.unwrap();
    takes_writes(&server, true).await;
    hold().await;
    takes_writes(&server, false).await;
    assert!(is_found(&mut client, "ada").await);
    end().await;
    takes_writes(&server, true).await;
    client.create_user(user("bob")).await.unwrap();
    assert!(block_in_place(|| server.stop()).success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_write_lock_of_the_file_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.db");
    let other = Connection::open(&path).unwrap();
    is_found_out(
        &format!("sqlite:{}", path.display()),
        async || other.execute_batch("BEGIN IMMEDIATE").unwrap(),
        async || other.execute_batch("COMMIT").unwrap(),
    )
    .await;
}

async fn a_held_lock_is_found_out(lock: &str) {
    let url = fresh_postgres().await;
    let name = url.rsplit_once('/').unwrap().1.split_once('?').unwrap().0.to_owned();
    let other = block_in_place(database::shared).client(&name).await;
    is_found_out(
        &url,
        async || other.batch_execute(&format!("BEGIN; {lock}")).await.unwrap(),
        async || other.batch_execute("ROLLBACK").await.unwrap(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_counter_of_the_database_is_found_out() {
    a_held_lock_is_found_out("SELECT FROM user_service.meta FOR UPDATE").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_table_of_users_is_found_out() {
    a_held_lock_is_found_out("LOCK TABLE user_service.users IN SHARE MODE").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_change_log_of_the_database_is_found_out() {
    a_held_lock_is_found_out("LOCK TABLE user_service.changes IN SHARE MODE").await;
}

/// A write that fails says so as well, sooner than the store is tried.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_fail_while_the_file_is_held_and_work_again_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.db");
    let (mut server, mut client) = serve(&format!("sqlite:{}", path.display())).await;
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = client.create_user(user("ada")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    block_in_place(|| server.wait_for_line("another program holds the store's file"));
    other.execute_batch("COMMIT").unwrap();
    client.create_user(user("ada")).await.unwrap();
    block_in_place(|| server.wait_for_line("the store takes writes again"));
    let warnings =
        server.log().iter().filter(|line| line.contains("writes fail until it releases it")).count();
    assert_eq!(warnings, 1, "{:?}", server.log());
    assert!(block_in_place(|| server.stop()).success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_gives_its_room_back_after_a_long_reader() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.db");
    let store = store::open(&at(&path)).unwrap();
    stored(&store, create("first")).await;
    let reader = Connection::open(&path).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM users").unwrap();
    let log_bytes = || fs::metadata(path.with_extension("db-wal")).unwrap().len();
    let mut number = 0;
    // More than what it keeps under load.
    while log_bytes() < 10 << 20 {
        let writes = (0..256).map(|n| {
            let store = store.clone();
            tokio::spawn(async move { stored(&store, create(&format!("user-{}", number + n))).await })
        });
        for write in writes.collect::<Vec<_>>() {
            write.await.unwrap();
        }
        number += 256;
    }
    drop(reader);
    // Nobody writes any more.
    let end = Instant::now() + TEST_TIMEOUT;
    while log_bytes() > 0 {
        assert!(Instant::now() < end, "the log has {} bytes still", log_bytes());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    store.close().await;
}

fn purge(path: &Path) -> Output {
    let url = format!("sqlite:{}", path.display());
    Command::new(env!("CARGO_BIN_EXE_user-service")).args(["purge", "--store-url", &url]).output().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_says_that_nothing_is_erased_while_another_program_reads() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.db");
    let store = store::open(&at(&path)).unwrap();
    stored(&store, create("zebulon")).await;
    write(&store, delete("zebulon")).await.unwrap();
    store.close().await;
    // The id stays; the name is in the address, too.
    let name = "zebulon@";
    let reader = Connection::open(&path).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM changes").unwrap();
    for round in 0..2 {
        let done = block_in_place(|| purge(&path));
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{round}: {done:?}");
        assert!(done.stdout.is_empty() && said.contains("fuser") && said.contains("purge again"), "{said}");
        assert!(!files_with(dir.path(), name).is_empty());
    }
    drop(reader);
    let done = block_in_place(|| purge(&path));
    assert!(done.status.success(), "{done:?}");
    assert!(files_with(dir.path(), name).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_say_that_another_program_holds_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.db");
    store::migrate(&at(&path)).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let done = block_in_place(|| purge(&path));
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    assert!(said.contains("another program holds the store") && said.contains("users.db"), "{said}");
}

/// A user's name is gone from the files a moment after the change log has forgotten it,
/// whether or not anybody writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_change_log_forgets_leaves_the_files_while_the_store_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.db");
    let config = Config { change_log_retention: Duration::from_secs(1), ..at(&path) };
    let store = store::open(&config).unwrap();
    stored(&store, create("zebulon")).await;
    write(&store, delete("zebulon")).await.unwrap();
    let end = Instant::now() + 2 * TEST_TIMEOUT;
    while !files_with(dir.path(), "zebulon@").is_empty() {
        assert!(Instant::now() < end, "{:?}", files_with(dir.path(), "zebulon@"));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    store.close().await;
}
