//! Calls that no honest client makes: each gets a proper status, and the log stays
//! short.

use std::io::Write;

use crate::{
    raw_http2::{ACK, DATA, END_HEADERS, HEADERS, PING, PREFACE, Peer, RST_STREAM, SETTINGS, frame},
    support::Server,
    support::grpc_client::{Answer, GrpcClient, framed, head, prefixed},
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::Request;
use tokio::runtime::Runtime;
use user_service::rpc::methods::METHODS;

const CREATE: &str = "/user.v1.UserService/CreateUser";
const CHECK: &str = "/grpc.health.v1.Health/Check";

const NOT_UTF_8: &str = "text that is not UTF-8";

const OK: i32 = 0;
const INVALID_ARGUMENT: i32 = 3;
const RESOURCE_EXHAUSTED: i32 = 8;
const UNIMPLEMENTED: i32 = 12;
const INTERNAL: i32 = 13;

/// A server to ill-treat.
struct Victim {
    server: Server,
    runtime: Runtime,
    caller: GrpcClient,
}

impl Victim {
    fn start(args: &[&str]) -> Self {
        let server = Server::start(args);
        let runtime = Runtime::new().unwrap();
        let caller = runtime.block_on(GrpcClient::connect(server.grpc_addr)).expect("it is up");
        Self { server, runtime, caller }
    }

    fn call(&self, request: Request<()>, body: impl Into<Bytes>) -> Answer {
        let what = format!("{request:?}");
        let answer = self.runtime.block_on(self.caller.call(request, body));
        answer.unwrap_or_else(|lost| panic!("{lost:?} after {what}"))
    }

    fn code(&self, request: http::request::Builder, body: impl Into<Bytes>) -> i32 {
        self.call(request.body(()).unwrap(), body).code()
    }

    /// It still serves, nothing panicked, and the log has no more lines than this
    /// since it began to serve.
    fn must_be_well(mut self, lines: usize) {
        assert_eq!(self.code(head(CHECK), framed(&[])), OK);
        // Lines are written in their order, so this one comes after all that were earned.
        self.server.signal("TERM");
        self.server.wait_for_line("\"draining\"");
        let log = self.server.log();
        let panics: Vec<_> = log.iter().filter(|line| line.contains("panic")).collect();
        assert!(panics.is_empty(), "{panics:#?}");
        let line = |text| log.iter().position(|line| line.contains(text)).expect("it has begun and ended");
        let since = &log[line("\"serving\"") + 1..line("\"draining\"")];
        assert!(since.len() <= lines, "{} lines: {since:#?}", since.len());
    }
}

#[test]
fn another_content_type_is_refused() {
    let victim = Victim::start(&[]);
    for kind in ["application/yaml", "application/grpc+foo", "application/grpcx", "text/html", ""] {
        let request = head(CREATE).body(()).map(|mut request| {
            request.headers_mut().insert("content-type", kind.parse().unwrap());
            request
        });
        let answer = victim.call(request.unwrap(), framed(&[]));
        assert_eq!((answer.http, answer.code()), (415, INVALID_ARGUMENT), "{kind}: {answer:?}");
    }
    let bare = Request::post(format!("http://test{CREATE}")).body(()).unwrap();
    let answer = victim.call(bare, framed(&[]));
    assert_eq!((answer.http, answer.code()), (415, INVALID_ARGUMENT), "none: {answer:?}");
    victim.must_be_well(6);
}

#[test]
fn what_is_not_served_is_unimplemented() {
    let victim = Victim::start(&[]);
    let long = format!("/{}", "x".repeat(8_000));
    let query = format!("{CREATE}?x=1");
    let slash = format!("{CREATE}/");
    let doubled = format!("/{CREATE}");
    let mut paths = vec!["/", "/user.v1.UserService/", "/user.v1.UserService/Nope", "/Nope/GetUser"];
    paths.extend(["/user.v1.userservice/CreateUser", "/user.v1.UserService/%43reateUser"]);
    paths.extend([&long[..], &query, &slash, &doubled]);
    for path in paths {
        assert_eq!(victim.code(head(path), framed(&[])), UNIMPLEMENTED, "{path}");
    }
    for method in ["GET", "PUT", "OPTIONS", "BREW"] {
        let answer = victim.call(head(CREATE).method(method).body(()).unwrap(), framed(&[]));
        assert_eq!((answer.http, answer.code()), (405, UNIMPLEMENTED), "{method}: {answer:?}");
    }
    victim.must_be_well(14);
}

#[test]
fn bytes_that_are_no_message_are_internal_on_every_method() {
    let victim = Victim::start(&["--call-log", "false"]);
    let bodies = [
        ("half a prefix", Bytes::from_static(&[0, 0])),
        ("a message cut short", prefixed(0, 100, b"abc")),
        ("bytes that are not protobuf", framed(&[0xff; 40])),
        ("a field that ends nowhere", framed(&[0x0a, 0x7f, 1])),
        (
            "a varint without end",
            framed(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ),
        (NOT_UTF_8, framed(&[0x0a, 2, 0xc3, 0x28])),
        ("groups in groups", framed(&[0x0b; 2_000])),
        ("an unknown flag", prefixed(7, 0, &[])),
        ("compressed with nothing", prefixed(1, 3, b"abc")),
    ];
    for method in &METHODS {
        for (what, body) in &bodies {
            let answer = victim.call(head(method.path).body(()).unwrap(), body.clone());
            // A request of List has no field, so this is a field that it does not know.
            let is_unknown_field = method.name() == "List" && *what == NOT_UTF_8;
            let code = if is_unknown_field { OK } else { INTERNAL };
            assert_eq!(answer.code(), code, "{what} to {}: {answer:?}", method.path);
            assert!(!answer.message.contains("src/"), "{what} to {}: {answer:?}", method.path);
        }
    }
    victim.must_be_well(0);
}

#[test]
fn a_call_without_the_message_that_its_method_takes_is_an_error() {
    let victim = Victim::start(&[]);
    for path in [CREATE, "/user.v1.UserService/WatchUsers"] {
        assert_eq!(victim.code(head(path), Bytes::new()), UNIMPLEMENTED, "{path}");
    }
    victim.must_be_well(2);
}

#[test]
fn messages_over_the_cap_are_refused_by_their_length() {
    let victim = Victim::start(&[]);
    let large = vec![0; 64 * 1_024 + 1];
    assert_eq!(victim.code(head(CREATE), framed(&large)), RESOURCE_EXHAUSTED);
    assert_eq!(victim.code(head(CREATE), prefixed(0, u32::MAX, b"abc")), RESOURCE_EXHAUSTED);
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    bomb.write_all(&vec![0; 8 * 1_024 * 1_024]).unwrap();
    let bomb = bomb.finish().unwrap();
    let body = prefixed(1, u32::try_from(bomb.len()).unwrap(), &bomb);
    assert_eq!(victim.code(head(CREATE).header("grpc-encoding", "gzip"), body), RESOURCE_EXHAUSTED);
    victim.must_be_well(3);
}

#[test]
fn an_unknown_compression_is_unimplemented() {
    let victim = Victim::start(&[]);
    let request = head(CREATE).header("grpc-encoding", "snappy");
    assert_eq!(victim.code(request, prefixed(1, 3, b"abc")), UNIMPLEMENTED);
    let broken = head(CREATE).header("grpc-encoding", "gzip");
    assert_eq!(victim.code(broken, prefixed(1, 3, b"abc")), INTERNAL);
    victim.must_be_well(2);
}

#[test]
fn a_timeout_that_cannot_be_read_is_an_invalid_argument() {
    let victim = Victim::start(&[]);
    let bad = ["", "S", "1", "1x", "-1S", "+1S", "123456789S", "1.5S", "1 S", "1e3m", "0x1S", "\u{ff11}S"];
    for timeout in bad {
        let request = head(CHECK).header("grpc-timeout", timeout.as_bytes());
        assert_eq!(victim.code(request, framed(&[])), INVALID_ARGUMENT, "{timeout:?}");
    }
    assert_eq!(victim.code(head(CHECK).header("grpc-timeout", "99999999H"), framed(&[])), OK);
    victim.must_be_well(0);
}

#[test]
fn binary_headers_that_are_not_base64_do_no_harm() {
    let victim = Victim::start(&[]);
    for name in [
        "grpc-trace-bin",
        "grpc-tags-bin",
        "grpc-status-details-bin",
        "x-any-bin",
        "traceparent",
        "tracestate",
    ] {
        for value in ["!!!", "%%%%", "=", "a", "\u{e4}\u{f6}", "AAAA===="] {
            let request = head(CHECK).header(name, value.as_bytes());
            assert_eq!(victim.code(request, framed(&[])), OK, "{name}: {value}");
        }
    }
    victim.must_be_well(0);
}

#[test]
fn whatever_is_not_http_ends_its_own_connection_and_no_line_is_logged() {
    let victim = Victim::start(&[]);
    let after_handshake = |bytes: Vec<u8>| [PREFACE, &frame(SETTINGS, 0, 0, &[]), &bytes].concat();
    let openings = [
        b"GET / HTTP/1.1\nHost: test\n\n".to_vec(),
        b"GET / HTTP/9.9\r\nHost: test\r\n\r\n".to_vec(),
        b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 9".to_vec(),
        // The beginning of a TLS ClientHello.
        vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
        vec![0; 100],
        [PREFACE, &[0xff; 200]].concat(),
        after_handshake(frame(HEADERS, END_HEADERS, 1, &[0xff; 50])),
        after_handshake(frame(HEADERS, END_HEADERS, 2, &[0x83])),
        after_handshake(frame(DATA, 0, 1, b"no such stream")),
        after_handshake(vec![0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]),
    ];
    for _ in 0..10 {
        for opening in &openings {
            let mut peer = Peer::silent(victim.server.grpc_addr);
            peer.try_write(opening);
            peer.finish();
        }
    }
    victim.must_be_well(0);
}

#[test]
fn frames_that_make_no_sense_do_not_flood_the_log() {
    let victim = Victim::start(&[]);
    let mut peer = Peer::connect(victim.server.grpc_addr);
    for number in 0..1_000_u64 {
        peer.send(PING, ACK, 0, &number.to_be_bytes());
    }
    peer.so_far();
    let mut hasty = Peer::connect(victim.server.grpc_addr);
    for stream in (1..2_000).step_by(2) {
        let cancel = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        let call = frame(HEADERS, END_HEADERS, stream, &crate::raw_http2::head(CREATE));
        if !hasty.try_write(&[call, cancel].concat()) {
            break;
        }
    }
    hasty.finish();
    // The call log's own allowance, in each second that this touches.
    victim.must_be_well(300);
}
