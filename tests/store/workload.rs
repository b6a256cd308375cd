//! Crowds on three replicas, while all is well and while it is not: nothing that
//! was acknowledged is lost, nothing is doubled, nobody reads the past.

use std::{
    env,
    process::Command,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crate::{
    database::{Database, name},
    history_checker::{self, Event, Seen},
    proxy::{Plan, Proxy},
    support::TEST_TIMEOUT,
    workload_clients::{Replicas, Workload, stored},
    workload_watchers::WorkloadWatchers,
};
use tokio::{
    task::{block_in_place, spawn_blocking},
    time,
};
use user_service::{config::StoreUrl, store};

const REPLICAS: usize = 3;

/// How soon after the database the service has to be back.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a phase takes: longer where `WORKLOAD_SECONDS` asks for it.
fn phase(seconds: u64) -> Duration {
    Duration::from_secs(env::var("WORKLOAD_SECONDS").map_or(seconds, |long| long.parse().expect("seconds")))
}

fn url(port: impl std::fmt::Display, name: &str) -> String {
    format!("postgres://tests@127.0.0.1:{port}/{name}?sslmode=disable")
}

fn count(events: &[Event], which: fn(&Seen) -> bool) -> usize {
    events.iter().filter(|event| which(&event.seen)).count()
}

/// What does not fit together of what a crowd saw and what is stored in the end.
async fn judge(
    server: &Database,
    name: &str,
    events: &[Event],
    watchers: Option<WorkloadWatchers>,
) -> Vec<String> {
    let (log, users) = stored(&server.client(name).await).await;
    let [wrote, read] =
        [|seen: &Seen| matches!(seen, Seen::Wrote { .. }), |seen: &Seen| matches!(seen, Seen::Read(_))]
            .map(|which| count(events, which));
    let unknown = count(events, |seen| matches!(seen, Seen::Unknown | Seen::UnknownDelete { .. }));
    println!("{wrote} writes, {read} reads, {unknown} unknown outcomes, {} revisions", log.len());
    assert!(wrote > 100 && read > 100, "{wrote} writes and {read} reads are too few");
    let mut wrong = history_checker::check(&log, &users, events);
    if let Some(watchers) = watchers {
        wrong.extend(watchers.disagree(&log, &users).await);
    }
    wrong
}

fn assert_right(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} are wrong, such as {:#?}", wrong.len(), &wrong[..wrong.len().min(10)]);
}

/// `calm` is how long the same takes while all is well, which tells how slow the
/// machine is.
async fn back(replicas: &Replicas, workload: &Workload, calm: Duration, what: &str) {
    let took = replicas.recovered().await;
    println!("back {took:?} after {what}, {calm:?} while all is well");
    assert!(took < RECOVERY_TIMEOUT + calm * 20, "the service is back {took:?} after {what}");
    // So that there is something to lose the next time.
    workload.progress(200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_on_three_replicas_agrees_with_the_order_of_revisions() {
    let server = block_in_place(Database::start);
    let name = name(&server.fresh().await);
    let replicas = Replicas::start(&url(server.port, &name), REPLICAS);
    let watchers = WorkloadWatchers::start(&replicas).await;
    let workload = Workload::start(&replicas);
    workload.work(phase(8)).await;
    let events = workload.stop().await;
    let unknown = count(&events, |seen| matches!(seen, Seen::Unknown | Seen::UnknownDelete { .. }));
    assert_eq!(unknown, 0, "nothing failed, so everybody knows");
    assert_right(&judge(&server, &name, &events, Some(watchers)).await);
}

/// The counter as a sequence: revisions are unique, but not in commit order.
const SEQUENCE: &str = "
    SET search_path = user_service;
    CREATE SEQUENCE counter MINVALUE 0 START 0;
    ALTER TABLE meta RENAME TO truth;
    CREATE FUNCTION now() RETURNS TABLE (schema_version integer, store_id uuid, revision bigint, fence bigint)
        LANGUAGE plpgsql AS $$ BEGIN RETURN QUERY SELECT t.schema_version, t.store_id,
        COALESCE(NULLIF(current_setting('planted.mine', true), '')::bigint, c.last_value), t.fence
        FROM user_service.truth t, user_service.counter c; END $$;
    CREATE VIEW meta AS SELECT * FROM user_service.now();
    CREATE FUNCTION move() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM pg_advisory_lock(1);
        NEW.revision := NEW.revision - OLD.revision + last_value FROM user_service.counter;
        PERFORM setval('user_service.counter', NEW.revision);
        PERFORM pg_advisory_unlock(1);
        PERFORM set_config('planted.mine', NEW.revision::text, true);
        PERFORM pg_sleep(random() / 5);
        RETURN NEW;
    END $$;
    CREATE TRIGGER move INSTEAD OF UPDATE ON meta FOR EACH ROW EXECUTE FUNCTION move()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequence_in_place_of_the_counter_is_caught() {
    let server = block_in_place(Database::start);
    let config = server.fresh().await;
    let name = name(&config);
    spawn_blocking(move || store::migrate(&config).unwrap()).await.unwrap();
    server.client(&name).await.batch_execute(SEQUENCE).await.unwrap();
    let replicas = Replicas::start(&url(server.port, &name), REPLICAS);
    let late = |wrong: &&String| wrong.starts_with("order") || wrong.starts_with("read");
    let mut wrong = Vec::new();
    // It takes a read between two commits, which a busy machine may not come to.
    for _ in 0..5 {
        let workload = Workload::start(&replicas);
        workload.work(Duration::from_secs(3)).await;
        wrong = judge(&server, &name, &workload.stop().await, None).await;
        if wrong.iter().any(|wrong| late(&wrong)) {
            return;
        }
    }
    panic!("nobody saw the past: {wrong:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_loses_nothing_when_replicas_connections_and_database_fail() {
    let mut server = block_in_place(Database::start);
    let name = name(&server.fresh().await);
    let proxy = Proxy::start(server.port).await;
    let replicas = Replicas::start(&url(proxy.port, &name), REPLICAS);
    let watchers = WorkloadWatchers::start(&replicas).await;
    let workload = Workload::start(&replicas);
    workload.work(phase(1)).await;
    let calm = replicas.recovered().await;

    let killed = Arc::clone(&replicas);
    spawn_blocking(move || killed.replace(1)).await.unwrap();
    back(&replicas, &workload, calm, "a replica was killed").await;

    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
    assert!(!server.client("postgres").await.query(cut, &[&name]).await.unwrap().is_empty());
    back(&replicas, &workload, calm, "connections were cut").await;

    for plan in [Plan::CutBeforeCommit, Plan::CutAfterCommit].repeat(4) {
        proxy.plan.send_replace(plan);
        proxy.plan.subscribe().wait_for(|plan| *plan == Plan::Forward).await.unwrap();
        workload.progress(20).await;
    }
    back(&replicas, &workload, calm, "commits were cut").await;

    proxy.plan.send_replace(Plan::Silence);
    time::sleep(phase(5)).await;
    proxy.plan.send_replace(Plan::Forward);
    back(&replicas, &workload, calm, "the database said nothing").await;

    proxy.plan.send_replace(Plan::Slow(Duration::from_millis(200)));
    time::sleep(phase(3)).await;
    proxy.plan.send_replace(Plan::Forward);
    back(&replicas, &workload, calm, "the database was slow").await;

    for signal in ["INT", "QUIT"] {
        block_in_place(|| server.stop(signal));
        time::sleep(phase(1)).await;
        block_in_place(|| server.run());
        back(&replicas, &workload, calm, "the database restarted").await;
    }
    workload.work(phase(1)).await;
    let events = workload.stop().await;
    assert_right(&judge(&server, &name, &events, Some(watchers)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_loses_nothing_however_often_the_database_fails_over() {
    let mut primary = block_in_place(Database::start);
    let name = name(&primary.fresh().await);
    let mut standby = primary.standby().await;
    let hosts = format!("{},127.0.0.1:{}", primary.port, standby.port);
    let replicas = Replicas::start(&(url(hosts, &name) + "&target_session_attrs=read-write"), REPLICAS);
    let watchers = WorkloadWatchers::start(&replicas).await;
    let calm = replicas.recovered().await;
    let (mut events, mut interrupted) = (Vec::new(), 0);
    assert!(failovers() > 0, "FAILOVERS is 1 at least");
    for round in 0..failovers() {
        let workload = Workload::start_again(&replicas, round);
        workload.progress(100).await;
        let batches = kill_in_the_middle_of_a_batch(&mut primary, &standby).await;
        let begun = Instant::now();
        let promoted = standby.client("postgres").await.query_one("SELECT pg_promote()", &[]).await.unwrap();
        assert!(promoted.get::<_, bool>(0));
        println!("failover {round}: {batches} batches cut, promoted within {:?}", begun.elapsed());
        interrupted += batches;
        back(&replicas, &workload, calm, "a failover").await;
        events.extend(workload.stop().await);
        assert_right(&judge(&standby, &name, &events, None).await);
        if round + 1 < failovers() {
            let next = standby.standby_on(primary.port).await;
            primary = std::mem::replace(&mut standby, next);
        }
    }
    println!("{} failovers in the middle of {interrupted} batches", failovers());
    assert_right(&judge(&standby, &name, &events, Some(watchers)).await);
}

/// How often the database fails over: `FAILOVERS`.
fn failovers() -> u64 {
    env::var("FAILOVERS").map_or(2, |count| count.parse().expect("a number"))
}

/// Stops what receives for the standby, so that commits wait for it, and kills the primary then.
/// How many commits did wait: some of them are on their way to the standby, which goes on.
async fn kill_in_the_middle_of_a_batch(primary: &mut Database, standby: &Database) -> usize {
    let receiver = standby.client("postgres").await;
    let receiver = receiver.query_one("SELECT pid FROM pg_stat_wal_receiver", &[]).await.unwrap();
    let signal = |signal: &str| {
        let pid = receiver.get::<_, i32>(0).to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    };
    let client = primary.client("postgres").await;
    signal("-STOP");
    let waiting = "SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    let until = Instant::now() + TEST_TIMEOUT;
    let batches = loop {
        let batches = client.query(waiting, &[]).await.unwrap().len();
        if batches > 0 || Instant::now() > until {
            break batches;
        }
        time::sleep(Duration::from_millis(5)).await;
    };
    block_in_place(|| primary.stop("QUIT"));
    signal("-CONT");
    assert!(batches > 0, "no commit waits for the standby");
    batches
}

/// What a release to come may add: it takes nothing from this one.
const NEXT_SCHEMA: &str = "
    ALTER TABLE user_service.users ADD COLUMN nickname text NOT NULL DEFAULT '';
    ALTER TABLE user_service.changes ADD COLUMN nickname text;
    CREATE INDEX ON user_service.users (nickname);
    CREATE TABLE user_service.nicknames (nickname text PRIMARY KEY)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_notices_nothing_of_a_migration_by_the_next_release() {
    let server = block_in_place(Database::start);
    let config = server.fresh().await;
    let name = name(&config);
    let replicas = Replicas::start(&url(server.port, &name), REPLICAS);
    let watchers = WorkloadWatchers::start(&replicas).await;
    let workload = Workload::start(&replicas);
    let counts = Arc::clone(&workload.counts);
    workload.work(Duration::from_secs(1)).await;
    let StoreUrl::Postgres(place) = config.store_url.clone() else { unreachable!("it is a database") };
    let client = server.client(&name).await;
    let meta = "SELECT schema_version, revision FROM user_service.meta";
    let version = client.query_one(meta, &[]).await.unwrap().get::<_, i32>(0);
    let migrating = spawn_blocking(move || store::migrate_further(&place, &config, &[NEXT_SCHEMA]));
    migrating.await.unwrap().unwrap();
    let now = client.query_one(meta, &[]).await.unwrap();
    assert_eq!(now.get::<_, i32>(0), version + 1);
    let before = now.get::<_, i64>(1).cast_unsigned();
    workload.work(Duration::from_secs(1)).await;
    let events = workload.stop().await;
    let unknown = count(&events, |seen| matches!(seen, Seen::Unknown | Seen::UnknownDelete { .. }));
    assert_eq!(unknown, 0, "each call has an answer");
    assert_eq!(counts.failures.load(Ordering::Relaxed), 0, "each call is served");
    let wrote =
        events.iter().filter(|event| matches!(event.seen, Seen::Wrote { revision, .. } if revision > before));
    assert!(wrote.count() > 100, "writes go on");
    assert_right(&judge(&server, &name, &events, Some(watchers)).await);
}
