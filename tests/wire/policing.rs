//! Frames that keep the server busy for nothing.

use std::{thread, time::Duration};

use crate::{
    listener_only::{ListenerOnly, closed, until},
    raw_http2::{
        ACK, CANCEL, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frame, GOAWAY, HEADERS, PING, Peer,
        RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, head,
    },
    support::{Server, http},
};
use user_service::config::Config;

const PRIORITY: u8 = 2;
const CONTINUATION: u8 = 9;

const POLICED: &str = "user_service_policed_connections_total";

fn serve() -> ListenerOnly {
    ListenerOnly::serve(Config { serving_threads: 1, ..Config::default() })
}

fn one() -> [u8; 4] {
    1_u32.to_be_bytes()
}

/// A peer with an open call on stream 1.
fn calling(server: &ListenerOnly) -> Peer {
    let mut peer = Peer::connect(server.addr);
    peer.send(HEADERS, END_HEADERS, 1, &head("/wait"));
    peer.so_far();
    peer
}

/// The last GOAWAY: its error, its last stream and its debug data.
fn goaway(frames: &[Frame]) -> (u32, u32, String) {
    let frame = frames.iter().rfind(|frame| frame.kind == GOAWAY).expect("a GOAWAY");
    let (last_stream, error) = frame.goaway();
    (error, last_stream, String::from_utf8(frame.payload[8..].to_vec()).unwrap())
}

#[test]
fn a_flood_of_frames_ends_its_connection_and_is_told_why() {
    for (name, flood, debug_data) in [
        ("pings", frame(PING, 0, 0, &[7; 8]), "too_many_pings"),
        ("pings", frame(PING, ACK, 0, &[7; 8]), "too_many_pings"),
        ("settings", frame(SETTINGS, 0, 0, &[]), "too_many_settings"),
        ("priorities", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]), "too_many_priorities"),
        ("window_updates", frame(WINDOW_UPDATE, 0, 0, &one()), "too_many_window_updates"),
        ("window_updates", frame(WINDOW_UPDATE, 0, 1, &one()), "too_many_window_updates"),
        ("unknown", frame(0xfa, 0, 0, &[]), "too_many_unknown"),
    ] {
        let server = serve();
        let mut peer = calling(&server);
        // Little enough to be read and discarded by a lingering close.
        peer.try_write(&flood.repeat(1_000_000 / flood.len()));
        let (error, last_stream, said) = goaway(&peer.rest());
        assert_eq!((error, last_stream, said.as_str()), (ENHANCE_YOUR_CALM, 1, debug_data));
        server.wait_for_metric(&closed("policed"), 1);
        assert_eq!(server.metric(&format!("{POLICED}{{port=\"grpc\",frames=\"{name}\"}}")), 1);
    }
}

#[test]
fn calls_that_are_reset_at_any_pace_end_the_connection() {
    // So many calls in one write, with time in between for the server to begin them.
    for pace in [10, 100] {
        let server = serve();
        let mut peer = Peer::connect(server.addr);
        let mut stream = 1;
        loop {
            let mut burst = Vec::new();
            for _ in 0..pace {
                burst.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &head("/wait")));
                burst.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
                stream += 2;
            }
            if !peer.try_write(&burst) {
                break;
            }
            thread::sleep(Duration::from_micros(pace));
        }
        assert!(stream / 2 >= 10_000, "ended after {} calls", stream / 2);
        server.wait_for_metric(&closed("policed"), 1);
        // Both frames of a call cost tokens, and the one is named that there was none left for.
        let counted = ["resets", "headers"]
            .map(|frames| server.metric(&format!("{POLICED}{{port=\"grpc\",frames=\"{frames}\"}}")));
        assert_eq!(counted.iter().sum::<u64>(), 1);
    }
}

#[test]
fn a_header_block_that_never_ends_ends_the_connection() {
    let server = serve();
    let mut peer = Peer::connect(server.addr);
    peer.send(HEADERS, END_STREAM, 1, &head("/wait"));
    peer.send(CONTINUATION, 0, 1, &[]);
    let (error, last_stream, said) = goaway(&peer.rest());
    assert_eq!((error, last_stream, said.as_str()), (ENHANCE_YOUR_CALM, 1, "incomplete_frame"));
    server.wait_for_metric(&closed("policed"), 1);
}

#[test]
fn a_peer_that_floods_and_does_not_read_is_ended() {
    let server = ListenerOnly::serve(Config {
        keepalive_interval: Duration::from_millis(500),
        keepalive_timeout: Duration::from_millis(500),
        ..Config::default()
    });
    let mut peer = Peer::lagging(server.addr);
    peer.send(SETTINGS, 0, 0, &[]);
    // Its acknowledgments fill what the kernel keeps before the budget is used up.
    peer.try_write(&frame(PING, 0, 0, &[7; 8]).repeat(50_000));
    until("it is ended", || server.metric(&closed("keepalive")) + server.metric(&closed("policed")) == 1);
}

#[test]
fn the_admin_port_polices_frames_too() {
    let server = Server::start(&[]);
    let mut peer = Peer::connect(server.admin_addr);
    peer.try_write(&frame(PING, 0, 0, &[7; 8]).repeat(50_000));
    let (error, _, said) = goaway(&peer.rest());
    assert_eq!((error, said.as_str()), (ENHANCE_YOUR_CALM, "too_many_pings"));
    until("the admin port counts it", || {
        let page = http::ask(server.admin_addr, "GET /metrics").body;
        http::sum(&page, POLICED, &["port=\"admin\"", "frames=\"pings\""]) > 0.5
    });
}
