//! Calls that are answered while they are still being sent. Proxies lose the status
//! where a reset comes with it, so there is none until the request has had its time.
//! The status does not wait for that.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    raw_http2::{
        DATA, END_HEADERS, END_STREAM, Frame, HEADERS, NO_ERROR, Peer, RST_STREAM, SETTINGS, WINDOW_UPDATE,
        frame, head,
    },
    support::Server,
};

const CREATE: &str = "/user.v1.UserService/CreateUser";
const IMPORT: &str = "/user.v1.UserService/ImportUsers";
const WATCH: &str = "/user.v1.UserService/WatchUsers";

/// Less than the smallest window, so that nothing is waited for.
const PART: [u8; 8_000] = [0; 8_000];
/// All parts together are larger than a message may be.
const PARTS: usize = 12;

/// A header that is not in HPACK's tables.
fn header(name: &str, value: &str) -> Vec<u8> {
    let mut block = vec![0];
    for text in [name, value] {
        block.push(u8::try_from(text.len()).unwrap());
        block.extend(text.bytes());
    }
    block
}

/// Sends a request in parts, and returns the answer, which comes before the request has ended,
/// and what comes of the stream after it.
fn send_slowly(peer: &mut Peer, stream: u32, block: &[u8], prefix: &[u8]) -> (Vec<Frame>, Vec<Frame>) {
    peer.send(HEADERS, END_HEADERS, stream, block);
    peer.send(DATA, 0, stream, prefix);
    peer.send(DATA, 0, stream, &PART);
    let (answer, mut late) = (answer(peer, stream), Vec::new());
    for _ in 1..PARTS {
        peer.send(DATA, 0, stream, &PART);
        // Both sides have seen the part once this returns.
        late.extend(peer.so_far().into_iter().filter(|frame| is_answer(frame, stream)));
    }
    peer.send(DATA, END_STREAM, stream, &[]);
    late.extend(peer.so_far().into_iter().filter(|frame| is_answer(frame, stream)));
    (answer, late)
}

/// Whether a frame is a part of the answer on this stream, or its reset.
fn is_answer(frame: &Frame, stream: u32) -> bool {
    frame.stream == stream && frame.kind != WINDOW_UPDATE
}

/// The frames of a stream up to the one that ends it.
fn answer(peer: &mut Peer, stream: u32) -> Vec<Frame> {
    let mut frames = Vec::new();
    loop {
        let frame = peer.next().unwrap_or_else(|| panic!("closed after {frames:?}"));
        if !is_answer(&frame, stream) {
            continue;
        }
        let ends = frame.kind == RST_STREAM || frame.flags & END_STREAM != 0;
        frames.push(frame);
        if ends {
            return frames;
        }
    }
}

#[test]
fn the_status_comes_while_a_request_is_sent_and_without_a_reset_whatever_the_call_is_refused_for() {
    let server = Server::start(&["--call-log", "false"]);
    let mut peer = Peer::connect(server.grpc_addr);
    let large = 90_000_u32.to_be_bytes();
    let large = [&[0][..], &large].concat();
    let small = [0, 0, 0, 0, 1, 0];
    let with = |path, name, value| [head(path), header(name, value)].concat();
    let mut json = head(CREATE);
    let at = json.windows(16).position(|part| part == b"application/grpc").unwrap();
    json[at..at + 16].copy_from_slice(b"application/json");
    let cases = [
        ("a message over the cap", head(CREATE), &large[..]),
        ("a stream's message over the cap", head(IMPORT), &large),
        ("a watch's message over the cap", head(WATCH), &large),
        ("several messages", head(CREATE), &small),
        ("an unknown method", head("/user.v1.UserService/Nope"), &small),
        ("another content type", json, &small),
        ("a timeout that cannot be read", with(CREATE, "grpc-timeout", "soon"), &large),
        ("a deadline that has passed", with(CREATE, "grpc-timeout", "0S"), &large),
        ("a deadline that passes", with(CREATE, "grpc-timeout", "1m"), &large[..3]),
        ("an unknown compression", with(IMPORT, "grpc-encoding", "snappy"), &small),
    ];
    for (number, (what, block, prefix)) in (0_u32..).zip(cases) {
        let stream = 2 * number + 1;
        let (answer, late) = send_slowly(&mut peer, stream, &block, prefix);
        assert!(answer.iter().all(|frame| frame.kind != RST_STREAM), "{what}: {answer:?}");
        assert!(answer[0].kind == HEADERS, "{what}: {answer:?}");
        assert!(late.is_empty(), "{what}: {late:?}");
    }
    // The connection is as good as before.
    peer.send(HEADERS, END_HEADERS, 101, &head("/grpc.health.v1.Health/Check"));
    peer.send(DATA, END_STREAM, 101, &[0; 5]);
    let serving = answer(&mut peer, 101);
    assert!(serving.iter().any(|frame| frame.payload == [0, 0, 0, 0, 2, 8, 1]), "{serving:?}");
}

#[test]
fn a_call_that_is_turned_away_by_admission_gets_its_status_without_a_reset() {
    let server = Server::start(&["--max-unary-calls", "1"]);
    let mut peer = Peer::connect(server.grpc_addr);
    // A window of nothing, so its answer cannot be sent and it keeps the only place.
    peer.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    peer.send(HEADERS, END_HEADERS, 1, &head("/user.v1.UserService/ListUsers"));
    peer.send(DATA, END_STREAM, 1, &[0; 5]);
    peer.wait_for(HEADERS);
    let (answer, late) = send_slowly(&mut peer, 3, &head(CREATE), &[0]);
    assert_eq!(answer.len(), 1, "{answer:?}");
    assert_eq!(answer[0].kind, HEADERS);
    assert!(late.is_empty(), "{late:?}");
}

#[test]
fn a_request_without_an_end_is_answered_soon_and_then_reset() {
    let server = Server::start(&[]);
    let mut peer = Peer::connect(server.grpc_addr);
    peer.send(HEADERS, END_HEADERS, 1, &head(CREATE));
    peer.send(DATA, 0, 1, &[0, 0, 1, 0, 0, 0]);
    let frames = answer(&mut peer, 1);
    assert_eq!(frames.last().map(|frame| frame.kind), Some(HEADERS), "{frames:?}");
    let reset = peer.wait_for(RST_STREAM);
    assert_eq!((reset.stream, reset.number(0)), (1, NO_ERROR));
}

#[test]
fn a_request_that_goes_on_and_on_is_answered_and_reset_by_its_time_and_its_bytes() {
    let server = Server::start(&[]);
    for pause in [Duration::ZERO, Duration::from_millis(100)] {
        let mut peer = Peer::connect(server.grpc_addr);
        peer.send(HEADERS, END_HEADERS, 1, &head(CREATE));
        peer.send(DATA, 0, 1, &[0, 0, 1, 0, 0, 0]);
        let begun = Instant::now();
        let (mut sent, mut frames) = (0, Vec::new());
        while !frames.iter().any(|frame: &Frame| frame.kind == RST_STREAM) {
            if !peer.try_write(&frame(DATA, 0, 1, &PART)) {
                break;
            }
            sent += PART.len();
            thread::sleep(pause);
            frames.extend(peer.so_far().into_iter().filter(|frame| is_answer(frame, 1)));
            assert!(sent < 6 << 20 && begun.elapsed() < crate::support::TEST_TIMEOUT, "no bound is kept");
        }
        let kinds: Vec<_> = frames.iter().map(|frame| frame.kind).collect();
        assert_eq!(kinds, [HEADERS, RST_STREAM], "after {sent} bytes");
        assert_eq!(frames[1].number(0), NO_ERROR);
    }
}
