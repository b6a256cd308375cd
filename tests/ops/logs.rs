//! The log: one line for a call, and nothing of anybody in it.

use std::{sync::Arc, time::Instant};

use futures_util::future::join_all;
use tokio::runtime::Runtime;
use tonic::Code;

use crate::{
    admin::ask,
    held_calls::{GET_USER, HeldCalls},
    support::{Server, TEST_TIMEOUT},
};

/// The lines about calls, up to the end of the process.
fn call_lines(mut server: Server) -> Vec<String> {
    server.signal("TERM");
    server.wait_for_line("\"ended\"");
    let lines = server.log().iter();
    lines.filter(|line| line.contains("\"target\":\"user_service::call\"")).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_leaves_one_line_with_its_method_its_code_and_its_trace() {
    let server = Server::start(&[]);
    let caller = HeldCalls::connect(server.grpc_addr).await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    assert_eq!(caller.call(GET_USER, &[("traceparent", parent)]).await.code(), Code::NotFound);
    caller.call("/made.up.Service/Method", &[]).await;
    caller.health().check(tonic_health::pb::HealthCheckRequest::default()).await.unwrap();
    let lines = call_lines(server);
    let [get, unknown] = &lines[..] else { panic!("two lines, none for the probe: {lines:#?}") };
    for part in [
        "\"level\":\"INFO\"",
        "\"method\":\"user.v1.UserService/GetUser\"",
        "\"code\":\"NOT_FOUND\"",
        "\"duration_us\":",
        "\"trace_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\"",
    ] {
        assert!(get.contains(part), "{part} is missing in {get}");
    }
    assert!(unknown.contains("\"_OTHER\"") && !unknown.contains("made.up"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_the_server_failed_is_a_warning() {
    let server = Server::start(&["--default-timeout-ms", "10"]);
    HeldCalls::connect(server.grpc_addr).await.open(GET_USER, &[]).wait().await;
    let lines = call_lines(server);
    assert!(lines[0].contains("\"WARN\"") && lines[0].contains("\"DEADLINE_EXCEEDED\""), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_call_log_can_be_switched_off() {
    let server = Server::start(&["--call-log", "false"]);
    HeldCalls::connect(server.grpc_addr).await.call(GET_USER, &[]).await;
    assert_eq!(call_lines(server), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_failures_is_counted_and_hides_no_fault_of_the_server() {
    let server = Server::start(&[]);
    let caller = HeldCalls::connect(server.grpc_addr).await;
    let begun = Instant::now();
    for _ in 0..40 {
        let flood = join_all((0..50).map(|_| caller.call("/made.up.Service/Method", &[])));
        let late = async { caller.open(GET_USER, &[("grpc-timeout", "1m")]).wait().await };
        let (_, late) = tokio::join!(flood, late);
        assert_eq!(late.code(), Code::DeadlineExceeded);
    }
    // Every second that it touched has its own allowance.
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap() + 2;
    let (faults, flood): (Vec<_>, Vec<_>) =
        call_lines(server).into_iter().partition(|line| line.contains("\"WARN\""));
    assert!((100..=100 * seconds).contains(&flood.len()), "{} lines in {seconds} s", flood.len());
    assert_eq!(faults.len(), 40, "each fault has its line");
}

#[test]
fn whoever_stops_reading_the_log_holds_up_nothing() {
    // A line for every frame: they fill the pipe and the queue soon.
    let mut server = Server::start(&["--log-filter", "info,h2=trace"]);
    let reading = Arc::clone(&server.reading);
    let unread = reading.lock().unwrap();
    let runtime = Runtime::new().unwrap();
    let caller = runtime.block_on(HeldCalls::connect(server.grpc_addr));
    let dropped = || {
        let metrics = ask(server.admin_addr, "GET /metrics").body;
        let prefix = "user_service_log_lines_dropped_total ";
        let line = metrics.lines().find_map(|line| line.strip_prefix(prefix));
        line.expect("it is counted").parse::<u64>().unwrap()
    };
    assert_eq!(dropped(), 0);
    let begun = Instant::now();
    while dropped() == 0 {
        let statuses = runtime.block_on(join_all((0..20).map(|_| caller.call(GET_USER, &[]))));
        assert!(statuses.iter().all(|status| status.code() == Code::NotFound), "{statuses:?}");
        assert!(begun.elapsed() < 2 * TEST_TIMEOUT, "no line is dropped");
    }
    runtime.shutdown_background();
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    drop(unread);
}
