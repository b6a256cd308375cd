//! Several stores on one database, and who may change its schema.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    database::{name, shared},
    fixtures::{create, fields, get, id, plain, repeatable, stored},
    forward::{Forward, Hooks},
    linearizability,
    support::TEST_TIMEOUT,
};
use async_trait::async_trait;
use tokio::{
    task::{JoinSet, block_in_place, spawn_blocking},
    time,
};
use user_service::{
    config::{Config, StoreUrl},
    domain::{Change, Deadline, Error, Store, UniqueKey},
    store::{self, OpenError},
};

/// Replicas behind a balancer: each call goes to the next one.
struct Spread {
    stores: Vec<Arc<dyn Store>>,
    next: AtomicUsize,
}

#[async_trait]
impl Hooks for Spread {
    fn store(&self) -> &Arc<dyn Store> {
        &self.stores[self.next.fetch_add(1, Ordering::Relaxed) % self.stores.len()]
    }

    async fn close(&self) {
        for store in &self.stores {
            store.close().await;
        }
    }
}

/// Replicas that open the same new database at once.
async fn replicas(config: &Config, count: usize) -> Arc<dyn Store> {
    let mut opening = JoinSet::new();
    for _ in 0..count {
        let config = config.clone();
        opening.spawn_blocking(move || store::open(&config).unwrap());
    }
    Arc::new(Forward(Spread { stores: opening.join_all().await, next: AtomicUsize::new(0) }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_over_three_replicas_are_linearizable() {
    let config = block_in_place(shared).fresh().await;
    let store = replicas(&config, 3).await;
    linearizability::concurrent_histories_are_linearizable(store.clone()).await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_race_for_an_address_or_a_revision_never_share_one() {
    let config = block_in_place(shared).fresh().await;
    let store = replicas(&config, 3).await;
    let mut writes = JoinSet::new();
    for n in 0..600 {
        let store = store.clone();
        writes.spawn(async move {
            let change = Change::Create {
                id: id(&format!("user-{n}")),
                fields: fields("Ada", &format!("address-{}", n / 3)),
            };
            store.write(plain(change), Deadline::NONE).await
        });
    }
    let mut revisions = Vec::new();
    for answer in writes.join_all().await {
        match answer {
            Ok(written) => revisions.push(written.revision),
            Err(error) => assert!(matches!(error, Error::AlreadyExists(UniqueKey::Email)), "{error:?}"),
        }
    }
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=200).collect::<Vec<u64>>());
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_on_another_replica_is_known_again() {
    let config = block_in_place(shared).fresh().await;
    let store = replicas(&config, 3).await;
    for request in 0..20 {
        let name = format!("user-{request}");
        let mut repeats = JoinSet::new();
        for attempt in 0..6 {
            let store = store.clone();
            // Each attempt would make an id of its own.
            let change =
                Change::Create { id: id(&format!("{name}-{attempt}")), fields: fields("Ada", &name) };
            repeats.spawn(async move {
                store.write(repeatable(change, request, "same"), Deadline::NONE).await.unwrap()
            });
        }
        let mut answers = repeats.join_all().await;
        answers.dedup();
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert_eq!(answers[0].revision, u64::from(request) + 1);
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_schema_in_the_database_is_refused() {
    let server = block_in_place(shared);
    let config = server.fresh().await;
    replicas(&config, 1).await.close().await;
    let client = server.client(&name(&config)).await;
    client.batch_execute("UPDATE user_service.meta SET schema_version = 99").await.unwrap();
    let refused = block_in_place(|| store::open(&config)).err().unwrap();
    assert!(matches!(refused, OpenError::NewerSchema { found: 99, .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_has_to_wait_for_a_table_lets_calls_go_first() {
    let server = block_in_place(shared);
    let config = server.fresh().await;
    let store = replicas(&config, 1).await;
    let ada = stored(&store, create("ada")).await;
    let (dump, other) = (server.client(&name(&config)).await, server.client(&name(&config)).await);
    dump.batch_execute("BEGIN; SELECT FROM user_service.users").await.unwrap();
    let StoreUrl::Postgres(place) = config.store_url.clone() else { unreachable!("it is a database") };
    let step = "ALTER TABLE user_service.users ADD COLUMN nickname text";
    let migrating = spawn_blocking(move || store::migrate_further(&place, &config, &[step]));
    let waits =
        "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'ALTER%nickname%'";
    for round in 0..3 {
        let until = Instant::now() + TEST_TIMEOUT;
        while other.query(waits, &[]).await.unwrap().is_empty() {
            assert!(Instant::now() < until && !migrating.is_finished(), "the migration does not wait");
            time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(get(&store, "ada").await, Some(ada.clone()));
        stored(&store, create(&format!("user-{round}"))).await;
    }
    dump.batch_execute("COMMIT").await.unwrap();
    migrating.await.unwrap().unwrap();
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_may_not_change_the_schema_serves_what_another_has_migrated() {
    let server = block_in_place(shared);
    let config = server.fresh().await;
    let database = name(&config);
    let client = server.client(&database).await;
    let (owner, role) = (format!("owner_{database}"), format!("server_{database}"));
    client.batch_execute(&format!("CREATE ROLE {owner} LOGIN; CREATE ROLE {role} LOGIN")).await.unwrap();
    let humble = server.config(&role, &database);
    let opening = humble.clone();
    let refused = spawn_blocking(move || store::open(&opening).err().unwrap()).await.unwrap();
    assert!(matches!(refused, OpenError::NoRights(_)), "{refused}");
    assert!(refused.to_string().contains("user-service migrate"), "{refused}");

    let manual = include_str!("../../docs/OPERATIONS.md");
    let (_, rights) =
        manual.split_once("```sql\nGRANT CREATE").expect("the manual says which rights it takes");
    let rights = format!("GRANT CREATE{}", rights.split_once("```").unwrap().0);
    // The database last, as its name begins as the login's does.
    let rights =
        rights.replace(" users", &format!(" {role}")).replace("owner", &owner).replace("accounts", &database);
    client.batch_execute(&rights).await.unwrap();
    let migrating = server.config(&owner, &database);
    spawn_blocking(move || store::migrate(&migrating).unwrap()).await.unwrap();
    let store = spawn_blocking(move || store::open(&humble).unwrap()).await.unwrap();
    let ada = stored(&store, create("ada")).await;
    assert_eq!(get(&store, "ada").await, Some(ada));
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_that_are_not_prepared_do_the_same() {
    let config = Config { store_prepared_statements: false, ..block_in_place(shared).fresh().await };
    let store = replicas(&config, 1).await;
    let ada = stored(&store, create("ada")).await;
    let again = store.write(repeatable(create("bob"), 1, "bob"), Deadline::NONE).await.unwrap();
    assert_eq!(store.write(repeatable(create("bob"), 1, "bob"), Deadline::NONE).await.unwrap(), again);
    assert_eq!(
        store.batch_get(&[id("ada"), id("bob")], Deadline::NONE).await.unwrap(),
        [Some(ada), again.user]
    );
    store.close().await;
}
