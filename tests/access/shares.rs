//! A caller over its share is refused, and others do not notice.

use std::time::Duration;

use futures_util::future::join_all;
use prost::Message;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tonic::Code;
use user_service::proto::user::v1::{ListUsersRequest, WatchUsersRequest};

use crate::{
    caller::{Begun, Caller, Told, bearer},
    support::{
        Server,
        http::{ask, sum},
    },
    tokens::{Files, Key, claims, jwks},
    verification::list,
};

const WATCH: &str = "/user.v1.UserService/WatchUsers";

const POLICY: &str = r#"
[roles.reader]
methods = ["user.v1.UserService/ListUsers", "user.v1.UserService/WatchUsers"]
[[grants]]
any_token = true
roles = ["reader"]
"#;

fn assert_over_quota(told: &Told) {
    assert_eq!((told.code, &*told.reason), (Code::ResourceExhausted, "QUOTA"), "{told:?}");
    assert!(told.retry_after_ms.is_some(), "{told:?}");
    assert_eq!(told.retry_after_ms, told.pushback_ms, "both say the same");
}

async fn watch(caller: &Caller, authorization: &[&str]) -> Begun {
    let message = WatchUsersRequest { initial_state: true, ..Default::default() };
    caller.begin(WATCH, authorization, &message.encode_to_vec()).await
}

#[tokio::test]
async fn an_identity_at_twenty_times_its_share_costs_a_quiet_one_no_call() {
    const RATE: u32 = 50;
    const CONNECTIONS: u32 = 8;
    let key = Key::ed("ed");
    let files = Files::new(&jwks(&[&key]), POLICY);
    let server = files.serve(&["--max-call-rate-per-caller", &RATE.to_string()]);
    let [noisy, quiet] = ["noisy", "quiet"].map(|name| bearer(&key.sign(&claims(name, &json!({})))));
    let begun = Instant::now();
    let addr = server.grpc_addr;
    let flood = tokio::spawn(join_all((0..CONNECTIONS).map(move |_| {
        let noisy = noisy.clone();
        async move {
            let caller = Caller::connect(addr).await;
            let (mut taken, mut refused) = (0_u32, 0_u32);
            let mut due = interval(Duration::from_secs(1) * CONNECTIONS / (20 * RATE));
            while begun.elapsed() < Duration::from_secs(4) {
                due.tick().await;
                let told = list(&caller, &[&noisy]).await;
                if told.code == Code::Ok {
                    taken += 1;
                } else {
                    assert_over_quota(&told);
                    refused += 1;
                }
            }
            (taken, refused)
        }
    })));
    let caller = Caller::connect(server.grpc_addr).await;
    let mut due = interval(Duration::from_secs(1) / (RATE / 2));
    // A machine that was busy is made up for by no burst of calls.
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut quiet_calls = 0;
    while !flood.is_finished() {
        due.tick().await;
        let told = list(&caller, &[&quiet]).await;
        assert_eq!(told.code, Code::Ok, "call {quiet_calls} of the quiet identity: {told:?}");
        quiet_calls += 1;
    }
    let (taken, refused) =
        flood.await.unwrap().into_iter().fold((0, 0), |(t, r), (taken, refused)| (t + taken, r + refused));
    let most = f64::from(RATE) * (begun.elapsed().as_secs_f64() + 1.0);
    println!("noisy: {taken} taken, {refused} refused; quiet: {quiet_calls} taken");
    assert!(refused > 0 && f64::from(taken) <= most, "{taken} of at most {most} taken, {refused} refused");
    let page = ask(server.admin_addr, "GET /metrics").body;
    let counted = sum(&page, "user_service_quota_refused_total", &["limit=\"call_rate\""]);
    assert!((counted - f64::from(refused)).abs() < 0.5, "{counted} counted");
}

#[tokio::test]
async fn an_identity_with_its_share_in_flight_is_refused_over_any_connection() {
    let key = Key::ed("ed");
    let files = Files::new(&jwks(&[&key]), POLICY);
    let server = files.serve(&["--max-calls-per-caller", "3"]);
    let [noisy, quiet] = ["noisy", "quiet"].map(|name| bearer(&key.sign(&claims(name, &json!({})))));
    let mut held = Vec::new();
    for _ in 0..3 {
        let caller = Caller::connect(server.grpc_addr).await;
        let begun = watch(&caller, &[&noisy]).await;
        assert_eq!(begun.told.code, Code::Ok);
        held.push((begun, caller));
    }
    let caller = Caller::connect(server.grpc_addr).await;
    assert_over_quota(&watch(&caller, &[&noisy]).await.told);
    assert_over_quota(&list(&caller, &[&noisy]).await);
    assert_eq!(list(&caller, &[&quiet]).await.code, Code::Ok);
    // One that ends makes room.
    held.pop();
    let until = Instant::now() + crate::support::TEST_TIMEOUT;
    while list(&caller, &[&noisy]).await.code != Code::Ok {
        assert!(Instant::now() < until, "a call that ended still counts");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn without_identities_a_share_is_that_of_an_address() {
    let server = Server::start(&["--max-calls-per-caller", "1"]);
    let first = Caller::connect_from([127, 0, 0, 1], server.grpc_addr).await.unwrap();
    let second = Caller::connect_from([127, 0, 0, 1], server.grpc_addr).await.unwrap();
    let other = Caller::connect_from([127, 0, 0, 2], server.grpc_addr).await.unwrap();
    let _held = watch(&first, &[]).await;
    assert_over_quota(&list(&second, &[]).await);
    assert_eq!(list(&other, &[]).await.code, Code::Ok);
    let health = second.call("/grpc.health.v1.Health/Check", &[], &[]).await;
    assert_eq!(health.code, Code::Ok, "probes have no share");
}

#[tokio::test]
async fn an_address_with_its_share_of_connections_gets_no_other() {
    let server = Server::start(&["--max-connections-per-address", "2"]);
    let from = async |host: u8| Caller::connect_from([127, 0, 0, host], server.grpc_addr).await;
    let held = [from(1).await.unwrap(), from(1).await.unwrap()];
    assert!(from(1).await.is_none(), "the third is closed");
    let other = from(2).await.expect("another address has a share of its own");
    let message = ListUsersRequest::default().encode_to_vec();
    assert_eq!(other.call(crate::verification::LIST, &[], &message).await.code, Code::Ok);
    let page = ask(server.admin_addr, "GET /metrics").body;
    assert!((sum(&page, "user_service_quota_refused_total", &["limit=\"connections\""]) - 1.0).abs() < 0.5);
    drop(held);
    let until = Instant::now() + crate::support::TEST_TIMEOUT;
    while from(1).await.is_none() {
        assert!(Instant::now() < until, "a connection that is gone still counts");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
