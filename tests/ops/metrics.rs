//! The figures say what happened, no more and no less.

use std::{net::SocketAddr, process::Command};

use crate::{
    admin::ask,
    collector::Collector,
    held_calls::{GET_USER, HeldCalls, hold, nobody, until},
    support::{Server, documented, http::sum},
};
use tonic::Code;
use user_service::proto::user::v1::{CreateUserRequest, User};

/// One scrape.
struct Scrape(String);

impl Scrape {
    fn of(addr: SocketAddr) -> Self {
        Self(ask(addr, "GET /metrics").body)
    }

    /// The sum of the series of this name that have all of these labels.
    fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        sum(&self.0, name, labels)
    }

    fn is(&self, name: &str, labels: &[&str], value: u32) -> bool {
        (self.sum(name, labels) - f64::from(value)).abs() < f64::EPSILON
    }
}

const GET: &str = "grpc_method=\"GetUser\"";
const V1: &str = "grpc_service=\"user.v1.UserService\"";

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_end_is_counted_once() {
    let server = Server::start(&["--max-unary-calls", "1"]);
    let caller = HeldCalls::connect(server.grpc_addr).await;
    let in_flight = |calls| {
        move || {
            Scrape::of(server.admin_addr).is("grpc_server_calls_in_flight", &[GET, V1], calls).then_some(())
        }
    };

    // Two that end by themselves, the first of them before the call that is held.
    assert_eq!(caller.users().get_user(nobody()).await.unwrap_err().code(), Code::NotFound);
    // One that takes too long.
    assert_eq!(caller.open(GET_USER, &[("grpc-timeout", "20m")]).wait().await.code(), Code::DeadlineExceeded);
    // One that is given up, and two that are shed meanwhile.
    let held = hold(server.grpc_addr).await;
    until(in_flight(1)).await;
    for _ in 0..2 {
        assert_eq!(caller.call(GET_USER, &[]).await.code(), Code::Unavailable);
    }
    held.abort();
    until(in_flight(0)).await;
    // Two to nowhere.
    for path in ["/no.such.Service/Method", "/user.v1.UserService/NoSuchMethod"] {
        assert_eq!(caller.call(path, &[]).await.code(), Code::Unimplemented);
    }

    let scrape = Scrape::of(server.admin_addr);
    for (labels, value) in [
        (&["grpc_method=\"CreateUser\"", V1, "grpc_code=\"OK\""][..], 1),
        (&[GET, V1, "grpc_code=\"NotFound\""], 1),
        (&[GET, V1, "grpc_code=\"DeadlineExceeded\""], 1),
        (&[GET, V1, "grpc_code=\"Unavailable\""], 2),
        (&[GET, V1, "grpc_code=\"Canceled\""], 1),
        (&["grpc_service=\"unknown\"", "grpc_code=\"Unimplemented\""], 2),
        (&[], 8),
    ] {
        let sum = scrape.sum("grpc_server_handled_total", labels);
        assert!(scrape.is("grpc_server_handled_total", labels, value), "{labels:?}: {sum}, not {value}");
    }
    assert!(scrape.is("grpc_server_started_total", &[], 8));
    assert!(scrape.is("grpc_server_msg_received_total", &[V1], 3));
    assert!(scrape.is("grpc_server_msg_sent_total", &[V1], 2));
    assert!(scrape.is("grpc_server_admission_shed_total", &["kind=\"unary\""], 2));
    assert!(scrape.is("grpc_server_admission_in_flight", &["kind=\"unary\""], 0));
    assert!(scrape.is("grpc_server_handling_seconds_count", &[], 1), "only what was OK");
    assert!(scrape.is("rpc_server_call_duration_seconds_count", &[], 8));
    let failed = ["rpc_response_status_code=\"UNAVAILABLE\"", "error_type=\"UNAVAILABLE\""];
    assert!(scrape.is("rpc_server_call_duration_seconds_count", &failed, 2));
    let late =
        ["rpc_method=\"user.v1.UserService/GetUser\"", "rpc_response_status_code=\"DEADLINE_EXCEEDED\""];
    assert!(scrape.is("rpc_server_call_duration_seconds_count", &late, 1));
}

#[test]
fn counters_are_there_before_anything_has_happened() {
    let server = Server::start(&[]);
    let scrape = Scrape::of(server.admin_addr);
    let zero = "grpc_server_handled_total{grpc_type=\"unary\",grpc_service=\"user.v1.UserService\",\
                grpc_method=\"DeleteUser\",grpc_code=\"DataLoss\"} 0";
    assert!(scrape.0.lines().any(|line| line == zero), "{zero} is missing");
    assert!(!scrape.0.contains("grpc_server_handling_seconds_count{grpc_type=\"unary\"} "));
}

/// Makes every kind of call, so that every metric has been recorded.
async fn use_everything(server: &Server) {
    let caller = HeldCalls::connect(server.grpc_addr).await;
    let user = User { name: "Ada".into(), email: "ada@example.com".into(), ..User::default() };
    let create = CreateUserRequest { user: Some(user), ..CreateUserRequest::default() };
    caller.users().create_user(create).await.unwrap();
    caller.call(GET_USER, &[]).await;
    assert_eq!(caller.open(GET_USER, &[("grpc-timeout", "5m")]).wait().await.code(), Code::DeadlineExceeded);
    let lag = "user_service_event_loop_lag_seconds_count";
    let shown = || (Scrape::of(server.admin_addr).sum(lag, &[]) > 0.0).then_some(());
    until(shown).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_documented_and_every_documented_metric_is_there() {
    let (collector, dir) = (Collector::start(), tempfile::tempdir().unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_user-service"));
    command.env("USERSVC_STORE_URL", format!("sqlite:{}", dir.path().join("users.db").display()));
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint());
    let server = Server::spawn(command);
    use_everything(&server).await;
    let mut whom = documented::ALWAYS.to_vec();
    whom.extend(["spans are sent", "SQLite", "SQLite, PostgreSQL"]);
    documented::agrees(&Scrape::of(server.admin_addr).0, &whom);

    // With less to show there is less, and that is documented too.
    for (names, left_out) in [("grpc_prometheus", "opentelemetry"), ("opentelemetry", "grpc_prometheus")] {
        let server = Server::start(&["--metric-names", names]);
        use_everything(&server).await;
        let left_out = format!("or `{left_out}`");
        let whom: Vec<_> = documented::ALWAYS.into_iter().filter(|whom| !whom.ends_with(&left_out)).collect();
        documented::agrees(&Scrape::of(server.admin_addr).0, &whom);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_names_nothing_is_measured_but_the_process() {
    let server = Server::start(&["--metric-names", "none"]);
    let caller = HeldCalls::connect(server.grpc_addr).await;
    assert_eq!(caller.call(GET_USER, &[]).await.code(), Code::NotFound);
    let page = Scrape::of(server.admin_addr).0;
    let names = documented::shown(&page).into_keys();
    let (process, others): (Vec<_>, Vec<_>) = names.partition(|name| name.starts_with("process_"));
    assert_eq!(others, ["user_service_log_lines_dropped_total"]);
    assert!(process.contains(&"process_resident_memory_bytes".to_owned()), "{process:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_measured_without_their_prefix() {
    let server = Server::start(&[]);
    let caller = HeldCalls::connect(server.grpc_addr).await;
    let name = "x".repeat(200);
    let user = User { name, email: "ada@example.com".into(), ..User::default() };
    let create = CreateUserRequest { user: Some(user), ..CreateUserRequest::default() };
    let len = prost::Message::encoded_len(&create);
    let created = caller.users().create_user(create).await.unwrap().into_inner();
    let scrape = Scrape::of(server.admin_addr);
    let of = ["grpc_method=\"CreateUser\"", V1];
    assert!(scrape.is("grpc_server_msg_received_bytes_sum", &of, u32::try_from(len).unwrap()));
    let len = u32::try_from(prost::Message::encoded_len(&created)).unwrap();
    assert!(scrape.is("grpc_server_msg_sent_bytes_sum", &of, len));
    let within = ["grpc_method=\"CreateUser\"", V1, "le=\"64\""];
    assert!(scrape.is("grpc_server_msg_received_bytes_bucket", &within, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_a_drain_are_to_be_seen() {
    let mut server = Server::start(&["--shutdown-delay-ms", "600000"]);
    let health = |scrape: &Scrape| {
        ["liveness", "readiness", "user.v1.UserService", "UserService"]
            .map(|name| scrape.sum("user_service_health_serving", &[&format!("name=\"{name}\"")]) > 0.5)
    };
    let scrape = Scrape::of(server.admin_addr);
    assert_eq!(health(&scrape), [true; 4]);
    assert!(scrape.is("user_service_draining", &[], 0));
    server.signal("TERM");
    server.wait_for_line("\"draining\"");
    let draining =
        || Some(Scrape::of(server.admin_addr)).filter(|scrape| scrape.is("user_service_draining", &[], 1));
    assert_eq!(health(&until(draining).await), [true, false, false, false]);
}
