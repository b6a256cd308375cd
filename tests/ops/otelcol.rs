//! Spans through a real collector, and what becomes of calls when it fails them.

use std::{
    collections::BTreeMap,
    io::Read,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tonic::Code;

use crate::{
    admin::ask,
    collector::{Collector, attribute},
    held_calls::{GET_USER, HeldCalls, until},
    support::{Server, TEST_TIMEOUT, free_port},
};

/// The collector that `make tools` has built, with the configuration of deploy/. It
/// sends on to a store of the test's own.
struct Real {
    process: Child,
    addr: SocketAddr,
}

impl Real {
    fn start(store: &Collector) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let program = root.join("bin/otelcol");
        assert!(program.exists(), "bin/otelcol is not there: run `make tools` first");
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut command = Command::new(program);
        command.arg("--config").arg(root.join("deploy/stack/otelcol.yaml"));
        command.env("OTLP_LISTEN", addr.to_string()).env("TRACE_STORE", store.endpoint());
        let process = command.spawn().unwrap();
        let end = Instant::now() + TEST_TIMEOUT;
        while TcpStream::connect(addr).is_err() {
            assert!(Instant::now() < end, "the collector does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        Self { process, addr }
    }

    fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        self.kill();
    }
}

fn serve(collector: SocketAddr, queue: &str) -> Server {
    let mut command = Command::new(env!("CARGO_BIN_EXE_user-service"));
    command.args(["--store-url", "memory:", "--flush-timeout-ms", "20000"]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{collector}"));
    command.env("OTEL_BSP_SCHEDULE_DELAY", "20").env("OTEL_BSP_MAX_QUEUE_SIZE", queue);
    Server::spawn(command)
}

/// The trace of the call of this number, and the span that its caller names.
fn named(call: usize) -> (String, String) {
    (format!("{:032x}", call + 1), format!("{:016x}", 1_000 + call))
}

fn traceparent(call: usize) -> String {
    let (trace, span) = named(call);
    format!("00-{trace}-{span}-01")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sampled_call_is_in_the_trace_store_and_so_is_one_of_the_drain() {
    const CALLS: usize = 200;
    let store = Collector::start();
    let real = Real::start(&store);
    let mut server = serve(real.addr, "2048");
    let caller = HeldCalls::connect(server.grpc_addr).await;
    for call in 1..CALLS {
        assert_eq!(
            caller.call(GET_USER, &[("traceparent", &traceparent(call))]).await.code(),
            Code::NotFound
        );
    }
    let held = caller.open(GET_USER, &[("traceparent", &traceparent(0))]);
    let begun = "user.v1.UserService/GetUser";
    until(|| ask(server.admin_addr, "GET /calls").body.contains(begun).then_some(())).await;
    server.signal("TERM");
    server.wait_for_line("\"draining\"");
    assert_eq!(held.finish().await.code(), Code::NotFound);
    assert!(server.wait().success());

    // A span for the call, and one for what it asked of the store.
    let (_, spans) = store.spans(2 * CALLS);
    let calls: BTreeMap<_, _> = spans
        .iter()
        .filter(|span| span.kind() == SpanKind::Server)
        .map(|span| (hex(&span.trace_id), span))
        .collect();
    assert_eq!((calls.len(), spans.len()), (CALLS, 2 * CALLS));
    for call in 0..CALLS {
        let (trace, caller) = named(call);
        let span = calls[&trace];
        assert_eq!(hex(&span.parent_span_id), caller);
        assert_eq!(attribute(&span.attributes, "rpc.method"), Some("user.v1.UserService/GetUser"));
        assert_eq!(attribute(&span.attributes, "rpc.response.status_code"), Some("NOT_FOUND"));
        let child =
            spans.iter().find(|child| child.parent_span_id == span.span_id).expect("the store's span");
        assert_eq!(child.trace_id, span.trace_id);
        assert_eq!(attribute(&child.attributes, "db.operation.name"), Some("get"));
    }
}

/// A collector that takes whatever it gets, and answers after this long.
fn slow(answer_after: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let mut stream = stream.unwrap();
                let mut bytes = vec![0; 64 * 1_024];
                while stream.read(&mut bytes).is_ok_and(|len| len > 0) {
                    thread::sleep(answer_after);
                    let _ = std::io::Write::write_all(
                        &mut stream,
                        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
                    );
                }
            });
        }
    });
    addr
}

/// How the slowest of a hundred calls but one did.
async fn p99(caller: &HeldCalls) -> Duration {
    let mut took = Vec::new();
    for _ in 0..CALLS {
        let begun = Instant::now();
        assert_eq!(caller.call(GET_USER, &[]).await.code(), Code::NotFound);
        took.push(begun.elapsed());
    }
    took.sort();
    took[CALLS - 2]
}

const CALLS: usize = 100;
const ROUNDS: usize = 20;
const QUEUE: u32 = 64;
/// How long the slow collector takes. A call that waits for any of the three takes as long.
const SLOW_ANSWER: Duration = Duration::from_millis(500);

fn value(page: &str, series: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} in {page}")).parse().unwrap()
}

/// A server, its caller, and what its collector is like.
struct Watched {
    what: &'static str,
    server: Server,
    caller: HeldCalls,
    p99s: Vec<Duration>,
}

impl Watched {
    async fn start((what, collector): (&'static str, SocketAddr)) -> Self {
        let server = serve(collector, &QUEUE.to_string());
        let caller = HeldCalls::connect(server.grpc_addr).await;
        Self { what, server, caller, p99s: Vec::new() }
    }

    /// What became of the spans: sent, failed, dropped.
    fn outcomes(&self) -> [f64; 3] {
        let page = ask(self.server.admin_addr, "GET /metrics").body;
        let outcome = |outcome| format!("user_service_trace_spans_total{{outcome=\"{outcome}\"}}");
        ["sent", "failed", "dropped"].map(|name| value(&page, &outcome(name)))
    }

    fn memory(&self) -> f64 {
        value(&ask(self.server.admin_addr, "GET /metrics").body, "process_resident_memory_bytes")
    }

    /// In its best round: what the machine does besides may spoil the others, and calls
    /// that wait for a collector would spoil them all.
    fn best_p99(&self) -> Duration {
        self.p99s.iter().copied().min().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_fails_costs_calls_nothing_and_what_is_lost_is_counted() {
    let store = Collector::start();
    let (real, mut killed) = (Real::start(&store), Real::start(&store));
    // It takes connections into its backlog and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut all = Vec::new();
    for collector in [
        ("well", real.addr),
        ("killed", killed.addr),
        ("silent", silent.local_addr().unwrap()),
        ("slow", slow(SLOW_ANSWER)),
    ] {
        all.push(Watched::start(collector).await);
    }
    // Until the queues are as full as they get.
    for watched in &all {
        p99(&watched.caller).await;
        p99(&watched.caller).await;
    }
    killed.kill();
    let before: Vec<_> = all.iter().map(Watched::memory).collect();
    // In turns, so that what else the machine does meets them all.
    for _ in 0..ROUNDS {
        for watched in &mut all {
            let p99 = p99(&watched.caller).await;
            watched.p99s.push(p99);
        }
    }

    let usual = all[0].best_p99();
    let made = f64::from(u32::try_from(2 * CALLS * (ROUNDS + 2)).unwrap());
    for (watched, before) in all.iter().zip(before) {
        let (what, p99) = (watched.what, watched.best_p99());
        assert!(p99 < usual + SLOW_ANSWER / 4, "{what}: {p99:?}, and {usual:?} where all is well");
        let after = watched.memory();
        assert!(after < before + 16.0 * 1_024.0 * 1_024.0, "{what}: from {before} to {after} bytes");
        let outcomes = watched.outcomes();
        let known: f64 = outcomes.iter().sum();
        assert!(known <= made && known + f64::from(QUEUE) >= made, "{what}: {outcomes:?} of {made}");
        let [sent, failed, dropped] = outcomes;
        match what {
            "well" => assert!(sent > 0.0 && failed < 1.0, "{outcomes:?}"),
            "killed" => assert!(failed > 0.0, "{outcomes:?}"),
            _ => assert!(dropped > 0.0, "{what}: {outcomes:?}"),
        }
    }
}
