//! Databases that go away in the middle.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    database::{self, Database, name, shared},
    fixtures::{create, get, write},
    proxy::{Plan, Proxy},
    support::TEST_TIMEOUT,
};
use tokio::{
    task::{JoinSet, block_in_place},
    time,
};
use user_service::{
    config::Config,
    domain::{Deadline, Error, Store},
    store,
};

/// What became of a user's create.
#[derive(Debug, PartialEq)]
enum Outcome {
    Created,
    /// Not applied, says the answer.
    Failed,
    Unknown,
}

/// Clients that create users, each once.
struct Creating {
    stop: Arc<AtomicBool>,
    created: Arc<AtomicUsize>,
    clients: JoinSet<BTreeMap<String, Outcome>>,
}

impl Creating {
    /// Until so many users were created.
    async fn reach(&self, users: usize) {
        let until = Instant::now() + TEST_TIMEOUT;
        while self.created.load(Ordering::Relaxed) < users {
            assert!(Instant::now() < until, "no {users} users are created");
            time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn stop(self) -> Vec<BTreeMap<String, Outcome>> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.join_all().await
    }
}

/// Creates users until told to stop.
fn keep_creating(store: &Arc<dyn Store>, clients: usize, round: &str) -> Creating {
    let (created, stopped) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let mut creating = JoinSet::new();
    for client in 0..clients {
        let (store, stop, round) = (store.clone(), stopped.clone(), round.to_owned());
        let created = created.clone();
        creating.spawn(async move {
            let mut outcomes = BTreeMap::new();
            while !stop.load(Ordering::Relaxed) {
                let name = format!("{round}-{client}-{}", outcomes.len());
                let outcome = match write(&store, create(&name)).await {
                    Ok(_) => {
                        created.fetch_add(1, Ordering::Relaxed);
                        Outcome::Created
                    }
                    Err(Error::OutcomeUnknown) => Outcome::Unknown,
                    Err(Error::Unavailable(_)) => Outcome::Failed,
                    Err(error) => panic!("{error:?}"),
                };
                if outcome != Outcome::Created {
                    time::sleep(Duration::from_millis(5)).await;
                }
                outcomes.insert(name, outcome);
            }
            outcomes
        });
    }
    Creating { stop: stopped, created, clients: creating }
}

/// Whether what is stored is what the answers said. Returns how many were created,
/// and how many not.
async fn check(store: &Arc<dyn Store>, creating: Creating) -> (usize, usize) {
    let (mut created, mut failed) = (0, 0);
    for (name, outcome) in creating.stop().await.into_iter().flatten() {
        let stored = get(store, &name).await.is_some();
        match outcome {
            Outcome::Created => assert!(stored, "{name} was acknowledged and is lost"),
            Outcome::Failed => assert!(!stored, "{name} was said not to be applied, and is there"),
            Outcome::Unknown => {}
        }
        created += usize::from(outcome == Outcome::Created);
        failed += usize::from(outcome != Outcome::Created);
    }
    (created, failed)
}

/// Until writes work again, and reads, which have connections of their own.
async fn recovered(store: &Arc<dyn Store>, name: &str) {
    let until = Instant::now() + TEST_TIMEOUT;
    while let Err(error) = write(store, create(name)).await {
        assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
        assert!(Instant::now() < until, "writes do not come back");
        time::sleep(Duration::from_millis(20)).await;
    }
    while !store.probe().await.reads {
        assert!(Instant::now() < until, "reads do not come back");
        time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_when_every_connection_is_cut_again_and_again() {
    let server = block_in_place(shared);
    let config = server.fresh().await;
    let store = block_in_place(|| store::open(&config)).unwrap();
    let creating = keep_creating(&store, 8, "user");
    let client = server.client("postgres").await;
    for round in 0..20 {
        let before = format!("before-{round}");
        recovered(&store, &before).await;
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
        assert!(!client.query(cut, &[&name(&config)]).await.unwrap().is_empty());
    }
    recovered(&store, "after").await;
    let (created, failed) = check(&store, creating).await;
    assert!(created > 0 && failed > 0, "{created} were created and {failed} not");
    // Revisions have no gap, so none was spent on what was not committed.
    let counts = server.client(&name(&config)).await;
    let counts = counts
        .query_one(
            "SELECT (SELECT revision FROM user_service.meta) = count(*), count(*) = (SELECT count(*) FROM
             user_service.users) FROM user_service.changes",
            &[],
        )
        .await
        .unwrap();
    assert!(counts.get::<_, bool>(0) && counts.get::<_, bool>(1));
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_fails_at_once_while_its_database_is_down_and_comes_back_with_it() {
    let mut server = block_in_place(Database::start);
    // One call that waits for its time limit takes longer than all calls below.
    let config = Config { store_timeout: TEST_TIMEOUT, ..server.fresh().await };
    let store = block_in_place(|| store::open(&config)).unwrap();
    write(&store, create("ada")).await.unwrap();
    for signal in ["INT", "QUIT"] {
        let creating = keep_creating(&store, 4, &signal.to_lowercase());
        creating.reach(20).await;
        block_in_place(|| server.stop(signal));
        // Found out by the connections, not by calls.
        let until = Instant::now() + TEST_TIMEOUT;
        while store.probe().await.reads || store.probe().await.writes {
            assert!(Instant::now() < until, "the loss goes unnoticed");
            time::sleep(Duration::from_millis(10)).await;
        }
        let begun = Instant::now();
        for _ in 0..100 {
            assert!(matches!(write(&store, create("bob")).await, Err(Error::Unavailable(_))));
            let read = store.batch_get(&[crate::fixtures::id("ada")], Deadline::NONE).await;
            assert!(matches!(read, Err(Error::Unavailable(_))));
        }
        assert!(begun.elapsed() < config.store_timeout, "calls wait for a database that is not there");
        block_in_place(|| server.run());
        recovered(&store, &format!("back-after-{}", signal.to_lowercase())).await;
        check(&store, creating).await;
        assert!(get(&store, "ada").await.is_some());
    }
    store.close().await;
}

/// A store whose way to its database can be told to fail.
async fn proxied(store_timeout: Duration) -> (Proxy, Arc<dyn Store>) {
    let server = block_in_place(shared);
    let direct = server.fresh().await;
    let proxy = Proxy::start(server.port).await;
    let config = Config { store_timeout, ..database::at(proxy.port, "tests", &name(&direct)) };
    (proxy, block_in_place(|| store::open(&config)).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_without_an_answer_is_looked_for() {
    let (proxy, store) = proxied(TEST_TIMEOUT).await;
    for round in 0..10 {
        for (plan, applied) in [(Plan::CutAfterCommit, true), (Plan::CutBeforeCommit, false)] {
            recovered(&store, &format!("before-{round}-{applied}")).await;
            proxy.plan.send_replace(plan);
            let name = format!("user-{round}-{applied}");
            let answer = write(&store, create(&name)).await;
            if applied {
                assert_eq!(get(&store, &name).await, answer.unwrap().user);
            } else {
                assert!(matches!(answer, Err(Error::Unavailable(_))), "{answer:?}");
                assert_eq!(get(&store, &name).await, None);
            }
        }
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_said_not_to_be_applied_does_not_come_late() {
    let (proxy, store) = proxied(TEST_TIMEOUT).await;
    for round in 0..5 {
        recovered(&store, &format!("before-{round}")).await;
        proxy.plan.send_replace(Plan::CutAndDeliverLate);
        let name = format!("user-{round}");
        let answer = write(&store, create(&name)).await;
        assert!(matches!(answer, Err(Error::Unavailable(_))), "{answer:?}");
        proxy.late.deliver.notify_one();
        time::timeout(TEST_TIMEOUT, proxy.late.ended.notified()).await.expect("the database takes it");
        assert_eq!(get(&store, &name).await, None, "round {round}");
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_says_nothing_costs_no_call_more_than_the_time_limit() {
    let (proxy, store) = proxied(Duration::from_secs(1)).await;
    write(&store, create("ada")).await.unwrap();
    proxy.plan.send_replace(Plan::Silence);
    let answer = time::timeout(TEST_TIMEOUT, write(&store, create("bob"))).await.expect("an answer in time");
    assert!(matches!(answer, Err(Error::Unavailable(_))), "{answer:?}");
    // Without a call to find it out.
    let until = Instant::now() + TEST_TIMEOUT;
    while store.probe().await.reads {
        assert!(Instant::now() < until, "the silence goes unnoticed");
    }
    proxy.plan.send_replace(Plan::Forward);
    recovered(&store, "carol").await;
    assert_eq!(get(&store, "bob").await, None, "what was said not to be applied is not");
    store.close().await;
}
