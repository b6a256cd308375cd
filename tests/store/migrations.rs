//! Stores of an earlier schema: they open with their users and their change log.

use std::{path::Path, time::Duration};

use crate::{
    database::{name, shared},
    fixtures::{at, create, delete, fields, get, id, stored, write},
};
use rusqlite::Connection;
use tokio::task::block_in_place;
use user_service::{
    config::Config,
    domain::{Age, Deadline, Email, Entry, Event, Fields, LogPosition, Timestamp, User},
    store,
};

const SQLITE_1: &str = include_str!("../../src/store/sqlite/migrations/0001_users.sql");
const POSTGRES_1: &str = include_str!("../../src/store/postgres/migrations/0001_users.sql");

/// What a service with the first schema left: Ada came and went, and Bob changed.
const HISTORY: &str = "
    INSERT INTO users VALUES ('bob', 'Bob \"B\" \u{fc}', 'b@example.com', 40, 4, 20, 40);
    INSERT INTO changes (revision, time, kind, id, name, email, age, create_time, update_time) VALUES
        (1, 10, 1, 'ada', 'Ada', 'ada@example.com', 36, 10, 10),
        (2, 20, 1, 'bob', 'Bob', 'bob@example.com', 39, 20, 20);
    INSERT INTO changes (revision, time, kind, id) VALUES (3, 30, 3, 'ada');
    INSERT INTO changes (revision, time, kind, id, name, email, age, create_time, update_time) VALUES
        (4, 40, 2, 'bob', 'Bob \"B\" \u{fc}', 'b@example.com', 40, 20, 40);
    UPDATE meta SET revision = 4;";

fn history() -> Vec<Entry> {
    let user = |user: &str, name: &str, email: &str, age, revision, [created, updated]: [i64; 2]| User {
        id: id(user),
        fields: Fields {
            email: Email::parse(email).unwrap(),
            age: Age::parse(age).unwrap(),
            ..fields(name, "any")
        },
        revision,
        create_time: Timestamp::from_micros(created),
        update_time: Timestamp::from_micros(updated),
    };
    let events = [
        Event::Created(user("ada", "Ada", "ada@example.com", 36, 1, [10, 10])),
        Event::Created(user("bob", "Bob", "bob@example.com", 39, 2, [20, 20])),
        Event::Deleted(id("ada")),
        Event::Updated(user("bob", "Bob \"B\" \u{fc}", "b@example.com", 40, 4, [20, 40])),
    ];
    let entry = |(event, revision): (Event, u32)| {
        let time = Timestamp::from_micros(i64::from(revision) * 10);
        Entry { position: LogPosition { revision: revision.into(), time }, event }
    };
    events.into_iter().zip(1..).map(entry).collect()
}

/// A file with the first schema, as a service left it.
fn earlier_file(path: &Path) {
    let file = Connection::open(path).unwrap();
    file.execute_batch(SQLITE_1).unwrap();
    file.pragma_update(None, "application_id", 0x7573_7276).unwrap();
    file.pragma_update(None, "user_version", 1).unwrap();
    file.execute_batch(HISTORY).unwrap();
}

/// The store has all of the history, and goes on after it.
async fn assert_history(config: Config) {
    // The history is of 1970: a store that prunes may do so before it is asked.
    let config = Config { change_log_retention: Duration::MAX, ..config };
    let store = block_in_place(|| store::open(&config)).unwrap();
    assert_eq!(store.changes(0, 10, Deadline::NONE).await.unwrap(), history());
    assert_eq!(store.log_head(Deadline::NONE).await.unwrap().newest, history()[3].position);
    assert_eq!(get(&store, "bob").await.as_ref(), history()[3].event.user());
    assert_eq!(stored(&store, create("ada")).await.revision, 5);
    assert_eq!(write(&store, delete("bob")).await.unwrap().revision, 6);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_an_earlier_schema_keeps_its_users_and_their_history() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.db");
    earlier_file(&path);
    assert_history(at(&path)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_an_earlier_schema_keeps_its_users_and_their_history() {
    let server = block_in_place(shared);
    let config = server.fresh().await;
    let client = server.client(&name(&config)).await;
    client.batch_execute(POSTGRES_1).await.unwrap();
    let batch = "ALTER TABLE user_service.changes ALTER batch SET DEFAULT gen_random_uuid();
                 UPDATE user_service.meta SET schema_version = 1; SET search_path = user_service";
    client.batch_execute(batch).await.unwrap();
    client.batch_execute(HISTORY).await.unwrap();
    assert_history(config).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_an_earlier_schema_goes_into_a_file_and_into_a_database() {
    let dir = tempfile::tempdir().unwrap();
    let backup = dir.path().join("backup.db");
    earlier_file(&backup);
    let file = at(&dir.path().join("users.db"));
    let database = block_in_place(shared).fresh().await;
    for config in [file, database] {
        let restored = block_in_place(|| store::restore(&config, &backup, false)).unwrap();
        assert_eq!((restored.users, restored.revision), (1, 4));
        assert_history(config).await;
    }
}
