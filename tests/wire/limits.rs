//! Peers that take more than their share.

use crate::{
    listener_only::{ListenerOnly, closed, until},
    raw_http2::{
        CANCEL, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frame, GOAWAY, HEADERS, Peer, REFUSED_STREAM,
        RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, head,
    },
};
use user_service::config::Config;

fn serve() -> ListenerOnly {
    ListenerOnly::serve(Config { serving_threads: 1, ..Config::default() })
}

/// The odd numbers, which are those of a client's streams.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|n| 2 * n + 1)
}

fn last_goaway(frames: &[Frame]) -> u32 {
    frames.iter().rfind(|frame| frame.kind == GOAWAY).expect("a GOAWAY").goaway().1
}

#[test]
fn hoarded_streams_are_refused_beyond_the_limit() {
    let server = serve();
    let mut peer = Peer::connect(server.addr);
    for stream in streams(150) {
        peer.call(stream, "/wait");
    }
    let frames = peer.so_far();
    let refused: Vec<_> = frames.iter().filter(|frame| frame.kind == RST_STREAM).collect();
    assert_eq!(refused.len(), 50);
    assert!(refused.iter().all(|frame| frame.number(0) == REFUSED_STREAM && frame.stream > 200));
    server.open(100);
    peer.wait_for_answers(100);
}

/// A new connection, and how many streams it may have by its SETTINGS.
fn connect(server: &ListenerOnly) -> (Peer, u32) {
    const MAX_CONCURRENT_STREAMS: u16 = 3;
    let mut peer = Peer::connect(server.addr);
    let settings = peer.wait_for(SETTINGS).payload;
    let streams = settings.chunks(6).find(|setting| setting[..2] == MAX_CONCURRENT_STREAMS.to_be_bytes());
    let streams = u32::from_be_bytes(streams.expect("it says so")[2..].try_into().unwrap());
    (peer, streams)
}

#[test]
fn a_new_connection_is_told_its_share_of_the_calls() {
    let config = Config { max_concurrent_streams: 400, max_unary_calls: 800, ..Config::default() };
    let server = ListenerOnly::serve(config);
    let mut open: Vec<_> = (0..10).map(|_| connect(&server)).collect();
    let told: Vec<_> = open.iter().map(|(_, streams)| *streams).collect();
    assert_eq!(told, [400, 400, 266, 200, 160, 133, 114, 100, 100, 100]);
    // The last one may have 100 calls in flight, and no more.
    let (last, _) = open.last_mut().unwrap();
    streams(101).for_each(|stream| last.call(stream, "/wait"));
    let refused = last.wait_for(RST_STREAM);
    assert_eq!((refused.stream, refused.number(0)), (201, REFUSED_STREAM));
    open.clear();
    server.wait_for_metric(&closed("client"), 10);
    until("a connection alone has every stream", || connect(&server).1 == 400);
}

#[test]
fn streams_reset_as_fast_as_they_are_opened_end_the_connection() {
    let server = serve();
    let mut peer = Peer::connect(server.addr);
    let mut burst = Vec::new();
    for stream in streams(20_000) {
        burst.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &head("/wait")));
        burst.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
    }
    peer.try_write(&burst);
    assert_eq!(last_goaway(&peer.rest()), ENHANCE_YOUR_CALM);
    server.wait_for_metric(&closed("policed"), 1);
}

#[test]
fn making_the_server_reset_streams_ends_the_connection() {
    let server = serve();
    let mut peer = Peer::connect(server.addr);
    for stream in streams(10_000) {
        // A window grown beyond the largest is an error of the stream, which is reset.
        let mut bytes = frame(HEADERS, END_HEADERS | END_STREAM, stream, &head("/wait"));
        bytes.extend(frame(WINDOW_UPDATE, 0, stream, &i32::MAX.to_be_bytes()));
        if !peer.try_write(&bytes) {
            break;
        }
    }
    assert_eq!(last_goaway(&peer.rest()), ENHANCE_YOUR_CALM);
    server.wait_for_metric(&closed("error"), 1);
}
