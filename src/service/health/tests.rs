use std::fmt::Write as _;

use futures_util::StreamExt;
use tonic::{Code, codec::CompressionEncoding};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::*;
use crate::{
    config::Config,
    proto::health::{HealthListRequest, health_client as with_list},
    service::{
        Router, StoreSlot,
        testing::{Transport, details, transport},
    },
};
use ServingStatus::{NotServing, ServiceUnknown, Serving};

const GOOD: StoreHealth = StoreHealth { reads: true, writes: true };
const READ_ONLY: StoreHealth = StoreHealth { reads: true, writes: false };
const DOWN: StoreHealth = StoreHealth { reads: false, writes: false };

fn serving() -> Health {
    let health = Health::new(&Config::default());
    health.set_store(GOOD);
    health.set_started(true);
    health
}

fn router_of(health: &Health, article_api: bool) -> Transport {
    let config = Config { article_api, ..Config::default() };
    transport(Router::new(&config, &StoreSlot::default(), health))
}

fn ask(name: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: name.into() }
}

/// liveness, "", the API services.
fn all(health: &Health) -> [bool; 4] {
    [LIVENESS, READINESS, USER_V1, ARTICLE].map(|name| health.is_serving(name))
}

#[test]
fn every_name_has_its_own_reasons() {
    let health = Health::new(&Config::default());
    assert_eq!(all(&health), [true, false, false, false], "alive before the store is open");
    health.set_store(GOOD);
    assert_eq!(all(&health), [true, false, false, false], "a store alone is no start");
    health.set_started(true);
    assert_eq!(all(&health), [true; 4]);
    health.set_store(READ_ONLY);
    health.set_store(READ_ONLY);
    assert_eq!(all(&health), [true, true, false, false], "reads go on");
    health.set_store(DOWN);
    health.set_store(DOWN);
    assert_eq!(all(&health), [true, false, false, false], "never the store");
    health.set_store(GOOD);
    assert_eq!(all(&health), [true; 4]);
    health.set_draining();
    assert_eq!(all(&health), [true, false, false, false], "alive while it drains");
}

#[test]
fn one_failed_probe_turns_nobody_away() {
    let health = serving();
    for _ in 0..3 {
        health.set_store(DOWN);
        assert_eq!(all(&health), [true; 4]);
        health.set_store(GOOD);
    }
    health.set_store(DOWN);
    health.set_store(DOWN);
    assert_eq!(all(&health), [true, false, false, false]);
    health.set_store(GOOD);
    assert_eq!(all(&health), [true; 4], "one good probe is enough to come back");
}

#[test]
fn a_store_that_never_answered_is_not_ready() {
    let health = Health::new(&Config::default());
    health.set_started(true);
    health.set_store(DOWN);
    assert_eq!(all(&health), [true, false, false, false]);
}

#[test]
fn a_thread_that_stopped_ticking_takes_liveness_down_and_nothing_else() {
    let health = serving();
    let ticks = [health.ticker(0), health.ticker(1)];
    let last = ticks[1].last.load(Ordering::Relaxed).min(ticks[0].last.load(Ordering::Relaxed));
    let at = |millis| health.0.started_at + Duration::from_millis(millis);
    assert_eq!(health.serving_at(LIVENESS, at(last + 9_999)), Some(true));
    // Thread 0 goes on, thread 1 is stuck.
    ticks[0].last.store(last + 10_000, Ordering::Relaxed);
    assert_eq!(health.serving_at(LIVENESS, at(last + 10_500)), Some(false));
    assert_eq!(health.serving_at(READINESS, at(last + 10_500)), Some(true));
    ticks[1].last.store(last + 10_000, Ordering::Relaxed);
    assert_eq!(health.serving_at(LIVENESS, at(last + 10_500)), Some(true));
}

#[test]
fn a_ticker_is_the_same_for_the_same_thread() {
    let health = serving();
    let (first, again) = (health.ticker(2), health.ticker(2));
    assert!(Arc::ptr_eq(&first.last, &again.last));
    first.last.store(0, Ordering::Relaxed);
    again.tick();
    assert!(first.last.load(Ordering::Relaxed) <= millis_since(health.0.started_at, Instant::now()));
}

#[tokio::test]
async fn check_answers_known_names_and_not_found_for_others() {
    let health = serving();
    // Compressed, as grpc_health_probe can be told to send.
    let mut client = HealthClient::new(router_of(&health, true)).send_compressed(CompressionEncoding::Gzip);
    for name in ["liveness", "", "user.v1.UserService", "UserService"] {
        let status = client.check(ask(name)).await.unwrap().into_inner().status();
        assert_eq!(status, Serving, "{name:?}");
    }
    health.set_draining();
    assert_eq!(client.check(ask("")).await.unwrap().into_inner().status(), NotServing);
    let status = client.check(ask("nobody")).await.unwrap_err();
    let details = details(&status, Code::NotFound, "UNKNOWN_HEALTH_NAME");
    assert!(details.resource_info().is_some());
}

#[tokio::test]
async fn list_answers_every_name_and_no_article_where_it_is_off() {
    for article_api in [true, false] {
        let health = Health::new(&Config { article_api, ..Config::default() });
        let mut client = with_list::HealthClient::new(router_of(&health, article_api));
        let list = client.list(HealthListRequest {}).await.unwrap().into_inner().statuses;
        let mut names: Vec<_> = list.iter().map(|(name, answer)| (name.as_str(), answer.status())).collect();
        names.sort_unstable_by_key(|(name, _)| *name);
        let mut expected = vec![("", NotServing), ("UserService", NotServing), ("liveness", Serving)];
        expected.push(("user.v1.UserService", NotServing));
        expected.retain(|(name, _)| article_api || *name != "UserService");
        assert_eq!(names, expected);
        let article = HealthClient::new(router_of(&health, article_api)).check(ask("UserService")).await;
        assert_eq!(article.is_ok(), article_api);
    }
}

#[tokio::test]
async fn watch_tells_the_first_status_at_once_and_then_every_change() {
    let health = serving();
    let mut client = HealthClient::new(router_of(&health, true));
    let mut stream = client.watch(ask("user.v1.UserService")).await.unwrap().into_inner();
    assert_eq!(stream.next().await.unwrap().unwrap().status(), Serving);
    health.set_store(READ_ONLY);
    health.set_store(READ_ONLY);
    assert_eq!(stream.next().await.unwrap().unwrap().status(), NotServing);
    // A change of something else is none of this name; the next answer is the next change.
    health.set_store(DOWN);
    health.set_store(GOOD);
    assert_eq!(stream.next().await.unwrap().unwrap().status(), Serving);
}

#[tokio::test]
async fn watch_of_an_unknown_name_stays_open() {
    let health = serving();
    let mut client = HealthClient::new(router_of(&health, true));
    let mut stream = client.watch(ask("nobody")).await.unwrap().into_inner();
    assert_eq!(stream.next().await.unwrap().unwrap().status(), ServiceUnknown);
    let mut next = std::pin::pin!(stream.next());
    assert!(futures_util::poll!(&mut next).is_pending());
    health.end_streams();
    details(&next.await.unwrap().unwrap_err(), Code::Unavailable, "DRAINING");
}

#[tokio::test]
async fn watch_says_not_serving_before_it_ends_with_the_drain() {
    let health = serving();
    let mut client = HealthClient::new(router_of(&health, true));
    let mut stream = client.watch(ask("")).await.unwrap().into_inner();
    let mut alive = client.watch(ask("liveness")).await.unwrap().into_inner();
    assert_eq!(stream.next().await.unwrap().unwrap().status(), Serving);
    assert_eq!(alive.next().await.unwrap().unwrap().status(), Serving);
    // Both at once, as without a delay between them: the status is not lost.
    health.set_draining();
    health.end_streams();
    assert_eq!(stream.next().await.unwrap().unwrap().status(), NotServing);
    let status = stream.next().await.unwrap().unwrap_err();
    let drain = details(&status, Code::Unavailable, "DRAINING");
    assert_eq!(drain.retry_info().unwrap().retry_delay, Some(Duration::ZERO));
    assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "0");
    assert!(stream.next().await.is_none());
    details(&alive.next().await.unwrap().unwrap_err(), Code::Unavailable, "DRAINING");
}

#[tokio::test]
async fn watch_notices_a_thread_that_is_stuck() {
    let health =
        Health::starting_at(&Config::default(), Instant::now().checked_sub(STUCK_AFTER * 2).unwrap());
    let tick = health.ticker(0);
    let mut client = HealthClient::new(router_of(&health, true));
    let mut stream = client.watch(ask("liveness")).await.unwrap().into_inner();
    assert_eq!(stream.next().await.unwrap().unwrap().status(), Serving);
    // Nothing announces that a thread has not ticked since it was born.
    tick.last.store(0, Ordering::Relaxed);
    assert_eq!(stream.next().await.unwrap().unwrap().status(), NotServing);
}

#[test]
fn the_documented_health_names_are_those_of_the_table() {
    let mut table = String::from("| health name | it is SERVING while |\n|---|---|\n");
    for (name, serving_while) in NAMES {
        writeln!(table, "| `{name:?}` | {serving_while} |").unwrap();
    }
    crate::config::docs::compare("docs/API.md", "health names", &table);
    let names: Vec<_> = Health::new(&Config::default()).names().collect();
    assert_eq!(names, NAMES.map(|(name, _)| name), "each of them is known");
}
