//! Spans: which calls have one, what it says, and that it arrives.

use std::{
    io::{Read, Write},
    net::TcpListener,
    process::Command,
    sync::atomic::Ordering,
    thread,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse},
    trace::v1::{span::SpanKind, status::StatusCode},
};
use prost::Message;
use tonic::Code;

use crate::{
    admin::ask,
    cli::Cli,
    collector::{Collector, attribute, of_kind},
    held_calls::{GET_USER, HeldCalls, until},
    support::{Server, documented},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn start(collector: &Collector, args: &[&str], env: &[(&str, &str)]) -> Server {
    let mut command = Command::new(env!("CARGO_BIN_EXE_user-service"));
    command.args(["--store-url", "memory:"]).args(args);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()).env("OTEL_BSP_SCHEDULE_DELAY", "20");
    Server::spawn({
        command.envs(env.iter().copied());
        command
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

fn traceparent(sampled: bool) -> String {
    format!("00-{TRACE}-{SPAN}-0{}", u8::from(sampled))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sampled_call_has_a_span_beneath_its_callers() {
    let collector = Collector::start();
    let attributes = [("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=ns.pod.app,deployment=blue")];
    let mut server = start(&collector, &[], &attributes);
    let caller = HeldCalls::connect(server.grpc_addr).await;
    caller.call(GET_USER, &[("traceparent", &traceparent(true)), ("tracestate", "a=b")]).await;
    let (resource, spans) = collector.spans(2);
    assert_eq!(attribute(&resource.attributes, "service.name"), Some("user-service"));
    assert_eq!(attribute(&resource.attributes, "service.instance.id"), Some("ns.pod.app"));
    let span = of_kind(&spans, SpanKind::Server);
    assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.into(), SPAN.into()));
    assert_eq!(span.name, "user.v1.UserService/GetUser");
    assert_eq!(span.kind(), SpanKind::Server);
    assert_eq!(attribute(&span.attributes, "rpc.system.name"), Some("grpc"));
    assert_eq!(attribute(&span.attributes, "user_service.protocol"), Some("grpc"));
    assert_eq!(attribute(&span.attributes, "rpc.method"), Some("user.v1.UserService/GetUser"));
    assert_eq!(attribute(&span.attributes, "rpc.response.status_code"), Some("NOT_FOUND"));
    // The caller's own mistake is no failure of this side.
    assert_eq!(attribute(&span.attributes, "error.type"), None);
    assert_ne!(span.status.clone().unwrap_or_default().code(), StatusCode::Error);
    assert_eq!(span.attributes.len(), 4, "nothing else: {:?}", span.attributes);

    let store = of_kind(&spans, SpanKind::Client);
    assert_eq!((&store.trace_id, &store.parent_span_id), (&span.trace_id, &span.span_id));
    assert_eq!(store.name, "get users");
    assert_eq!(attribute(&store.attributes, "db.system.name"), Some("memory"));
    assert_eq!(attribute(&store.attributes, "db.operation.name"), Some("get"));
    assert_eq!(attribute(&store.attributes, "db.collection.name"), Some("users"));
    assert_eq!(store.attributes.len(), 3, "nothing else: {:?}", store.attributes);
    // The log names the span too.
    let line = server.wait_for_line("\"user_service::call\"");
    assert!(line.contains(&format!("\"span_id\":\"{}\"", hex(&span.span_id))), "{line}");
    let mut fields = documented::fields(&line);
    fields.insert("unlogged".into());
    assert_eq!(fields, documented::log_fields(), "as documented, but for what only floods have");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_fails_on_this_side_has_a_failed_span() {
    let collector = Collector::start();
    let server = start(&collector, &[], &[("OTEL_SERVICE_NAME", "another-name")]);
    let caller = HeldCalls::connect(server.grpc_addr).await;
    assert_eq!(caller.open(GET_USER, &[("grpc-timeout", "5m")]).wait().await.code(), Code::DeadlineExceeded);
    let (resource, spans) = collector.spans(1);
    assert_eq!(attribute(&resource.attributes, "service.name"), Some("another-name"));
    let instance = attribute(&resource.attributes, "service.instance.id").expect("processes are told apart");
    assert_eq!(instance.len(), 36, "{instance}");
    let span = of_kind(&spans, SpanKind::Server);
    assert_eq!(attribute(&span.attributes, "error.type"), Some("DEADLINE_EXCEEDED"));
    assert_eq!(span.status.clone().unwrap().code(), StatusCode::Error);
    assert!(span.parent_span_id.is_empty(), "it began here");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_caller_or_the_ratio_leaves_out_has_no_span() {
    let collector = Collector::start();
    let sampler = [("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0")];
    let mut server = start(&collector, &[], &sampler);
    let caller = HeldCalls::connect(server.grpc_addr).await;
    caller.call(GET_USER, &[]).await;
    caller.call(GET_USER, &[("traceparent", &traceparent(false))]).await;
    caller.call(GET_USER, &[("traceparent", &traceparent(true))]).await;
    server.signal("TERM");
    server.wait();
    let spans = collector.rest();
    assert_eq!(hex(&of_kind(&spans, SpanKind::Server).trace_id), TRACE);
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE), "{spans:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_ends_in_the_drain_has_its_span_sent() {
    let collector = Collector::start();
    let mut server = start(&collector, &[], &[("OTEL_BSP_SCHEDULE_DELAY", "600000")]);
    let caller = HeldCalls::connect(server.grpc_addr).await;
    let open = caller.open(GET_USER, &[("traceparent", &traceparent(true))]);
    let begun = "user.v1.UserService/GetUser";
    until(|| ask(server.admin_addr, "GET /calls").body.contains(begun).then_some(())).await;
    server.signal("TERM");
    server.wait_for_line("\"draining\"");
    assert_eq!(open.finish().await.code(), Code::NotFound);
    assert!(server.wait().success());
    let spans = collector.rest();
    assert_eq!(spans.len(), 2, "{spans:?}");
    assert_eq!(hex(&of_kind(&spans, SpanKind::Server).parent_span_id), SPAN);
}

/// How many spans had this outcome.
fn count(server: &Server, outcome: &str) -> usize {
    let page = ask(server.admin_addr, "GET /metrics").body;
    let start = format!("user_service_trace_spans_total{{outcome=\"{outcome}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&start)).unwrap().parse().unwrap()
}

/// A page that answers everything with an empty 200.
fn page() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 4_096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    format!("http://{addr}/login")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_2xx_is_a_failure_redirects_included() {
    let page = page();
    for status in [300, 301, 302, 303, 304, 307, 308, 400, 401, 404, 405, 500, 501] {
        let collector = Collector::refusing(status, &page);
        let server = start(&collector, &[], &[]);
        let caller = HeldCalls::connect(server.grpc_addr).await;
        caller.call(GET_USER, &[("traceparent", &traceparent(true))]).await;
        until(|| (count(&server, "sent") + count(&server, "failed") == 2).then_some(())).await;
        assert_eq!((count(&server, "sent"), count(&server, "failed")), (0, 2), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_that_a_collector_takes_and_refuses_are_counted_as_lost() {
    let partial_success =
        ExportTracePartialSuccess { rejected_spans: 1, error_message: "one too many".into() };
    let one = ExportTraceServiceResponse { partial_success: Some(partial_success) }.encode_to_vec();
    // The last is no collector, though it says 200 to everything.
    for (answer, each_export) in [(one, 1), (b"<!doctype html>".to_vec(), usize::MAX)] {
        let collector = Collector::answering(answer);
        let server = start(&collector, &[], &[]);
        let caller = HeldCalls::connect(server.grpc_addr).await;
        caller.call(GET_USER, &[("traceparent", &traceparent(true))]).await;
        let count = |outcome: &str| count(&server, outcome);
        // Two spans, in one export or in two.
        let mut refused = 0;
        let mut sent = 0;
        while sent < 2 {
            let spans = collector.spans(1).1.len();
            (sent, refused) = (sent + spans, refused + each_export.min(spans));
        }
        until(|| (count("sent") + count("failed") == 2).then_some(())).await;
        assert_eq!((count("sent"), count("failed"), count("dropped")), (2 - refused, refused, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_says_nothing_holds_up_neither_calls_nor_the_end() {
    // It takes connections into its backlog and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_user-service"));
    command
        .args(["--store-url", "memory:", "--flush-timeout-ms", "50"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env("OTEL_BSP_SCHEDULE_DELAY", "1")
        .env("OTEL_BSP_MAX_QUEUE_SIZE", "8");
    let mut server = Server::spawn(command);
    let caller = HeldCalls::connect(server.grpc_addr).await;
    for _ in 0..100 {
        assert_eq!(caller.call(GET_USER, &[]).await.code(), Code::NotFound);
    }
    server.signal("TERM");
    // The flush takes what it was given, and not the exporter's own ten seconds.
    server.wait_for_line("the last spans");
    assert!(server.wait().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_are_packed_where_that_is_asked_for() {
    for (how, packed) in [("gzip", true), ("none", false)] {
        let collector = Collector::start();
        let server = start(&collector, &[], &[("OTEL_EXPORTER_OTLP_COMPRESSION", how)]);
        let caller = HeldCalls::connect(server.grpc_addr).await;
        caller.call(GET_USER, &[]).await;
        let (_, spans) = collector.spans(2);
        of_kind(&spans, SpanKind::Server);
        assert_eq!(collector.packed.load(Ordering::Relaxed) > 0, packed, "{how}");
    }
}

/// The warnings about variables that the log has begun with.
fn warnings(server: &mut Server) -> Vec<String> {
    let is_one = |line: &&String| line.contains("WARN") && line.contains("user_service::telemetry");
    server.log().iter().filter(is_one).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_cannot_be_used_is_ignored_with_a_warning_and_spans_are_sent() {
    for (name, value, remedies) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", &["http/protobuf", "4318"][..]),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", &["gzip, none"]),
        ("OTEL_PROPAGATORS", "tracecontxt", &["tracecontext"]),
        ("OTEL_PROPAGATORS", "b3,tracecontext", &["tracecontext"]),
        ("OTEL_TRACES_EXPORTER", "zipkin", &["otlp, none"]),
        ("OTEL_TRACES_SAMPLER", "xray", &["traceidratio"]),
        ("OTEL_SDK_DISABLED", "1", &["true, false"]),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "99999999999", &["from 1 to 1000000"]),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many", &["from 0 to"]),
    ] {
        let collector = Collector::start();
        let mut server = start(&collector, &[], &[(name, value)]);
        let warned = warnings(&mut server);
        let [warning] = &warned[..] else { panic!("{name}={value}: {warned:#?}") };
        assert!(warning.contains(name), "{warning}");
        assert!(remedies.iter().all(|remedy| warning.contains(remedy)), "{warning}");
        let caller = HeldCalls::connect(server.grpc_addr).await;
        caller.call(GET_USER, &[("traceparent", &traceparent(true))]).await;
        assert_eq!(hex(&of_kind(&collector.spans(2).1, SpanKind::Server).trace_id), TRACE, "{name}={value}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_value_is_as_good_as_none() {
    let collector = Collector::start();
    let empty = [
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
        "OTEL_TRACES_SAMPLER",
        "OTEL_TRACES_SAMPLER_ARG",
        "OTEL_TRACES_EXPORTER",
        "OTEL_PROPAGATORS",
        "OTEL_SDK_DISABLED",
        "OTEL_SERVICE_NAME",
        "OTEL_RESOURCE_ATTRIBUTES",
        "OTEL_BSP_MAX_QUEUE_SIZE",
        "OTEL_SPAN_LINK_COUNT_LIMIT",
    ];
    let env: Vec<_> = empty.map(|name| (name, "")).into_iter().chain([HEADERS]).collect();
    let mut server = start(&collector, &[], &env);
    let warned = warnings(&mut server);
    assert!(warned.is_empty(), "{warned:#?}");
    let caller = HeldCalls::connect(server.grpc_addr).await;
    caller.call(GET_USER, &[("traceparent", &traceparent(true))]).await;
    let (resource, spans) = collector.spans(2);
    assert_eq!(attribute(&resource.attributes, "service.name"), Some("user-service"));
    assert_eq!(hex(&of_kind(&spans, SpanKind::Server).trace_id), TRACE);
    assert_eq!(collector.authorization(), "Basic S3cret", "the general headers are sent");
}

const HEADERS: (&str, &str) = ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20S3cret");

#[tokio::test(flavor = "multi_thread")]
async fn without_propagators_no_caller_is_followed() {
    for (formats, warned) in [("none", 0), ("baggage", 0), ("b3", 1)] {
        let collector = Collector::start();
        let mut server = start(&collector, &[], &[("OTEL_PROPAGATORS", formats)]);
        assert_eq!(warnings(&mut server).len(), warned, "{formats}");
        let caller = HeldCalls::connect(server.grpc_addr).await;
        caller.call(GET_USER, &[("traceparent", &traceparent(false))]).await;
        let spans = collector.spans(2).1;
        let span = of_kind(&spans, SpanKind::Server);
        assert_ne!(
            hex(&span.trace_id),
            TRACE,
            "{formats}: the trace begins here, sampled as it is by default"
        );
        assert!(span.parent_span_id.is_empty(), "{formats}");
        let line = server.wait_for_line("\"user_service::call\"");
        assert!(!line.contains(TRACE), "{line}");
    }
}

#[test]
fn spans_go_through_the_proxy_of_the_environment_unless_it_is_told_not_to() {
    // Both collectors take what comes; which one it comes to is the question.
    for (no_proxy, by_proxy) in [("", true), ("127.0.0.1", false)] {
        let (collector, proxy) = (Collector::start(), Collector::start());
        let env =
            [("HTTP_PROXY", &*proxy.endpoint()), ("NO_PROXY", no_proxy)].map(|(a, b)| (a, b.to_owned()));
        let env = env.each_ref().map(|(name, value)| (*name, value.as_str()));
        let server = start(&collector, &[], &env);
        let checked = Cli::new().run(&["export", "--server", &server.grpc_addr.to_string()]);
        assert_eq!(checked.code, Some(0), "{}", checked.err);
        let through = if by_proxy { &proxy } else { &collector };
        assert!(!through.spans(1).1.is_empty(), "NO_PROXY={no_proxy}");
    }
}
