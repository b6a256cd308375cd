//! What callers are told by the layers: late, too many, too large.

use crate::{
    admin::ask,
    held_calls::{GET_USER, HeldCalls, hold, until},
    support::Server,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use user_service::proto::user::v1::{GetUserRequest, get_user_request};

fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_call_is_told_so_by_the_server() {
    let server = Server::start(&["--default-timeout-ms", "30"]);
    let caller = HeldCalls::connect(server.grpc_addr).await;
    let own = caller.open(GET_USER, &[("grpc-timeout", "10m")]).wait().await;
    assert_eq!((own.code(), reason(&own).as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
    let default = caller.open(GET_USER, &[]).wait().await;
    assert_eq!(default.code(), Code::DeadlineExceeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_its_callers_time_is_up_and_not_before() {
    let server = Server::start(&["--default-timeout-ms", "1"]);
    let mut health = HeldCalls::connect(server.grpc_addr).await.health();
    let watch = || tonic_health::pb::HealthCheckRequest { service: String::new() };
    let mut request = tonic::Request::new(watch());
    request.metadata_mut().insert("grpc-timeout", "2S".parse().unwrap());
    let mut watched = health.watch(request).await.unwrap().into_inner();
    assert!(watched.message().await.unwrap().is_some(), "the server's default is not for streams");
    assert_eq!(watched.message().await.unwrap_err().code(), Code::DeadlineExceeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_that_cannot_be_read_is_refused() {
    let server = Server::start(&[]);
    let caller = HeldCalls::connect(server.grpc_addr).await;
    for timeout in ["soon", "1", "123456789S", "-1S"] {
        let status = caller.call(GET_USER, &[("grpc-timeout", timeout)]).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{timeout}: {status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_too_many_is_told_when_to_come_back_and_probes_get_through() {
    let server = Server::start(&["--max-unary-calls", "1"]);
    let held = hold(server.grpc_addr).await;
    let full = "grpc_server_admission_in_flight{kind=\"unary\"} 1";
    until(|| ask(server.admin_addr, "GET /metrics").body.contains(full).then_some(())).await;
    // Another connection: the limit is the server's and not a connection's.
    let other = HeldCalls::connect(server.grpc_addr).await;
    let status = other.call(GET_USER, &[]).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "OVERLOADED"));
    let pushback = status.metadata().get("grpc-retry-pushback-ms").expect("a trailer").to_str().unwrap();
    let delay = status.get_error_details().retry_info().unwrap().retry_delay.unwrap();
    assert_eq!(pushback, delay.as_millis().to_string());
    other.health().check(tonic_health::pb::HealthCheckRequest::default()).await.unwrap();
    held.abort();
    let free = "grpc_server_admission_in_flight{kind=\"unary\"} 0";
    until(|| ask(server.admin_addr, "GET /metrics").body.contains(free).then_some(())).await;
    assert_eq!(other.call(GET_USER, &[]).await.code(), Code::NotFound, "there is room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_too_large_is_refused_by_its_length() {
    let server = Server::start(&["--max-request-bytes", "2048"]);
    let mut users = HeldCalls::connect(server.grpc_addr).await.users();
    let by = |len| GetUserRequest { key: Some(get_user_request::Key::Id("x".repeat(len))) };
    let status = users.get_user(by(3_000)).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "MESSAGE_TOO_LARGE"));
    assert!(status.get_error_details().retry_info().is_none(), "it would be as large the next time");
    let status = users.get_user(by(1_000)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "it fits, and is no id: {status:?}");
}
