//! How a batch is committed where no other replica writes meanwhile, and where one does.

use crate::{
    database::{name, shared},
    fixtures::{create, plain, repeatable},
    support::TEST_TIMEOUT,
};
use tokio::{
    task::{block_in_place, spawn_blocking},
    time::{self, Duration},
};
use user_service::{
    config::StoreUrl,
    domain::{Deadline, Error},
    store,
};

/// Notes which statement took the counter: one that writes the change log too, or another.
const NOTED: &str = "
    CREATE TABLE noted (n serial, alone boolean);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO noted (alone) VALUES (current_query() LIKE '%user_service.changes%'); RETURN NULL; END $$;
    CREATE TRIGGER note AFTER UPDATE ON user_service.meta FOR EACH ROW EXECUTE FUNCTION note()";

/// What another replica does that deletes a user, without the commit.
const OTHER: &str = "
    BEGIN; UPDATE user_service.meta SET revision = revision + 1;
    DELETE FROM user_service.users WHERE id = 'user-1';
    INSERT INTO user_service.changes (revision, batch, time, kind, id)
        SELECT revision, gen_random_uuid(), 0, 3, 'user-1' FROM user_service.meta";

const WAITING: &str = "
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_one_statement_unless_another_replica_writes_meanwhile() {
    let config = shared().fresh().await;
    let store = block_in_place(|| store::open(&config).unwrap());
    let client = shared().client(&name(&config)).await;
    client.batch_execute(NOTED).await.unwrap();
    let write = async |id: &str| {
        let written = store.write(plain(create(id)), Deadline::NONE).await?;
        let noted = client.query_one("SELECT alone FROM noted ORDER BY n DESC LIMIT 1", &[]).await.unwrap();
        Ok::<_, Error>((written.revision, noted.get::<_, bool>(0)))
    };
    assert_eq!(write("user-0").await.unwrap(), (1, false), "nothing is known of other replicas");
    assert_eq!(write("user-1").await.unwrap(), (2, true));
    assert!(matches!(write("user-1").await, Err(Error::AlreadyExists(_))));

    // Another replica holds the counter when this one has read that the user is there.
    let other = shared().client(&name(&config)).await;
    other.batch_execute(OTHER).await.unwrap();
    let (again, ()) = tokio::join!(write("user-2"), async {
        time::timeout(TEST_TIMEOUT, async {
            while client.query_one(WAITING, &[]).await.unwrap().get::<_, i64>(0) == 0 {
                time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("the write waits");
        other.batch_execute("COMMIT").await.unwrap();
    });
    assert_eq!(again.unwrap(), (4, false), "behind the other replica's change");
    assert_eq!(write("user-1").await.unwrap(), (5, true), "which the next batch knows of");

    let request = || store.write(repeatable(create("user-3"), 1, "user-3"), Deadline::NONE);
    assert_eq!(request().await.unwrap().revision, 6);
    assert_eq!(request().await.unwrap().revision, 6, "a request is known again");
    store.close().await;
}

/// What the statement that waits for the counter holds, if there is one that waits.
const HELD: &str = "
    SELECT coalesce(bool_or(granted AND relation IN ('user_service.users'::regclass, 'user_service.changes'::regclass)), false)
    FROM pg_stat_activity JOIN pg_locks USING (pid)
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'WITH taken%' HAVING count(*) > 0";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_one_statement_waits_for_a_migration_without_a_table_that_it_needs() {
    let config = shared().fresh().await;
    let store = block_in_place(|| store::open(&config).unwrap());
    for id in ["user-0", "user-1"] {
        store.write(plain(create(id)), Deadline::NONE).await.unwrap();
    }
    let (gate, client) = (shared().client(&name(&config)).await, shared().client(&name(&config)).await);
    gate.batch_execute("SELECT pg_advisory_lock(7)").await.unwrap();
    let step = "SELECT pg_advisory_xact_lock(7); ALTER TABLE user_service.changes ADD COLUMN note text;
        ALTER TABLE user_service.users ADD COLUMN nickname text";
    let StoreUrl::Postgres(place) = config.store_url.clone() else { unreachable!("it is a database") };
    let migrating = spawn_blocking(move || store::migrate_further(&place, &config, &[step]));
    let writing = async {
        let mut revision = 2;
        while !migrating.is_finished() {
            revision += 1;
            let written = store.write(plain(create(&format!("user-{revision}"))), Deadline::NONE).await;
            assert_eq!(written.unwrap().revision, revision);
        }
    };
    let watching = async {
        let held = time::timeout(TEST_TIMEOUT, async {
            loop {
                if let Some(row) = client.query_opt(HELD, &[]).await.unwrap() {
                    break row.get::<_, bool>(0);
                }
            }
        });
        assert!(!held.await.expect("a write waits"), "the migration needs what the write has locked");
        gate.batch_execute("SELECT pg_advisory_unlock(7)").await.unwrap();
    };
    tokio::join!(writing, watching);
    migrating.await.unwrap().unwrap();
    store.close().await;
}
