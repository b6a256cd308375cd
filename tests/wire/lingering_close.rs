//! What peers on slow lines get of a connection's end: all of it.

use std::{
    fs,
    io::{Read, Write},
    iter,
    net::SocketAddr,
    process::Command,
    thread,
    time::Duration,
};

use crate::{
    listener_only::{ListenerOnly, closed, until},
    raw_http2::{
        DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, NO_ERROR, PING, Peer, SETTINGS, WINDOW_UPDATE,
        frame, lagging_stream,
    },
    support::Server,
};
use user_service::config::Config;

const WATCH: &str = "/user.v1.UserService/WatchUsers";
const LIST: &str = "/user.v1.UserService/ListUsers";

/// Long enough for frames to pile up behind a reader, and short for a test.
const LAG: Duration = Duration::from_millis(5);

fn lingering(outcome: &str) -> String {
    format!("user_service_lingering_closes_total{{port=\"grpc\",outcome=\"{outcome}\"}}")
}

/// Stores this many users of some 300 bytes.
pub fn fill(server: &Server, users: usize) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("users.jsonl");
    let line = |n| {
        let name = "N".repeat(200);
        format!("{{\"id\":\"u{n:05}\",\"name\":\"{name}\",\"email\":\"u{n}@example.com\",\"age\":3}}\n")
    };
    fs::write(&file, (0..users).map(line).collect::<String>()).unwrap();
    let imported = Command::new(env!("CARGO_BIN_EXE_user-service"))
        .args(["import", "--server", &server.grpc_addr.to_string()])
        .arg(&file)
        .output()
        .unwrap();
    assert!(imported.status.success(), "{imported:?}");
}

/// A peer on a slow line, whose windows are too large to matter.
fn lagging(addr: SocketAddr) -> Peer {
    let mut peer = Peer::lagging(addr);
    // SETTINGS_INITIAL_WINDOW_SIZE.
    peer.send(SETTINGS, 0, 0, &[&[0, 4][..], &(16_u32 << 20).to_be_bytes()].concat());
    peer.send(WINDOW_UPDATE, 0, 0, &(16_u32 << 20).to_be_bytes());
    peer
}

fn call(peer: &mut Peer, stream: u32, path: &str, message: &[u8]) {
    let len = u32::try_from(message.len()).unwrap().to_be_bytes();
    peer.send(HEADERS, END_HEADERS, stream, &crate::raw_http2::head(path));
    peer.send(DATA, END_STREAM, stream, &[&[0][..], &len, message].concat());
}

/// Reads on as slowly as such a line does, and says so to the server as clients do.
fn next_slowly(peer: &mut Peer) -> Option<Frame> {
    let frame = peer.next()?;
    if frame.kind == DATA && !frame.payload.is_empty() {
        thread::sleep(LAG);
        let len = u32::try_from(frame.payload.len()).unwrap().to_be_bytes();
        // It may fail on a connection that was reset, which the next read tells.
        peer.try_write(&self::frame(WINDOW_UPDATE, 0, 0, &len));
    }
    if frame.kind == PING && frame.flags == 0 {
        peer.try_write(&self::frame(PING, crate::raw_http2::ACK, 0, &frame.payload));
    }
    Some(frame)
}

/// The header block that ends the answer on this stream; `None` where it was cut.
fn trailers_slowly(peer: &mut Peer, stream: u32) -> Option<Vec<u8>> {
    loop {
        let frame = next_slowly(peer)?;
        if ends(&frame, stream) {
            return Some(frame.payload);
        }
    }
}

/// Whether these are the trailers of the answer on this stream.
fn ends(frame: &Frame, stream: u32) -> bool {
    frame.kind == HEADERS && frame.stream == stream && frame.flags & END_STREAM != 0
}

#[test]
fn a_watch_that_lags_gets_its_status_and_its_token_when_the_server_is_told_to_stop() {
    const WATCHES: usize = 5;
    let server = Server::start(&[]);
    fill(&server, 4_000);
    let watches: Vec<_> = (0..WATCHES)
        .map(|_| {
            let mut peer = lagging(server.grpc_addr);
            // initial_state
            call(&mut peer, 1, WATCH, &[8, 1]);
            peer.wait_for(DATA);
            thread::spawn(move || trailers_slowly(&mut peer, 1))
        })
        .collect();
    assert_eq!(server.stop().code(), Some(0));
    for watch in watches {
        let trailers = watch.join().unwrap().expect("the watch was cut");
        // However HPACK codes them, details with a token in them are long.
        assert!(trailers.len() > 100, "{trailers:?}");
    }
}

#[test]
fn an_answer_is_whole_at_the_maximum_age_however_slowly_it_is_read() {
    let server = Server::start(&["--max-connection-age-ms", "500"]);
    fill(&server, 1_000);
    for _ in 0..5 {
        let mut peer = lagging(server.grpc_addr);
        let ping = loop {
            let frame = peer.next().expect("the connection is old enough to be told to go");
            if frame.kind == PING {
                break frame;
            }
        };
        // Sent before the GOAWAY was read, for all the server knows; page_size is 1,000.
        call(&mut peer, 1, LIST, &[8, 0xe8, 7]);
        peer.pong(&ping);
        let frames: Vec<_> = iter::from_fn(|| next_slowly(&mut peer)).collect();
        assert!(frames.iter().any(|frame| ends(frame, 1)), "the list was cut");
        let goaway = frames.iter().rfind(|frame| frame.kind == GOAWAY).expect("a GOAWAY");
        assert_eq!(goaway.goaway(), (1, NO_ERROR));
    }
}

#[test]
fn a_peer_that_stays_is_closed_in_time_and_counted() {
    let server = ListenerOnly::serve(config(Duration::from_millis(300)));
    let mut peer = Peer::connect(server.addr);
    let ping = peer.wait_for(PING);
    peer.pong(&ping);
    peer.wait_for(GOAWAY);
    peer.rest();
    server.wait_for_metric(&lingering("stayed"), 1);
    server.wait_for_metric(&closed("age"), 1);
}

#[test]
fn a_peer_that_closes_is_not_waited_for() {
    let server = ListenerOnly::serve(config(Duration::from_millis(300)));
    let mut peer = Peer::connect(server.addr);
    let ping = peer.wait_for(PING);
    peer.pong(&ping);
    peer.wait_for(GOAWAY);
    drop(peer);
    server.wait_for_metric(&lingering("peer"), 1);
}

#[test]
fn a_peer_that_goes_on_sending_is_closed_and_counted() {
    let server = ListenerOnly::serve(config(Duration::ZERO));
    let mut peer = Peer::connect(server.addr);
    // A frame that belongs to no stream is an error of the connection.
    peer.send(DATA, 0, 0, b"x");
    peer.wait_for(GOAWAY);
    let junk = frame(0xfe, 0, 0, &[0; 16_000]);
    until("the peer is cut", || !peer.try_write(&junk));
    server.wait_for_metric(&lingering("flooded"), 1);
}

#[test]
fn an_answer_that_nobody_takes_is_logged_as_cut_and_told_by_the_exit_code() {
    let mut server = Server::start(&["--drain-timeout-ms", "1500"]);
    // More than the peer's kernel takes, and less than makes the watch itself wait.
    fill(&server, 300);
    let mut peer = lagging(server.grpc_addr);
    call(&mut peer, 1, WATCH, &[8, 1]);
    peer.wait_for(DATA);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(75));
    let log = server.log();
    let watch = log.iter().find(|line| line.contains("WatchUsers")).expect("the call is logged");
    assert!(watch.contains("CANCELLED"), "{watch}");
    assert!(log.iter().any(|line| line.contains("calls were cut")), "{log:#?}");
}

#[test]
fn a_page_of_the_admin_port_is_whole_however_slowly_it_is_read() {
    let server = Server::start(&[]);
    let mut stream = lagging_stream(server.admin_addr);
    let request = "GET /metrics HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    // A request that will not be answered, some of which comes when the server has closed.
    let (mut page, mut part) = (Vec::new(), [0; 4_096]);
    loop {
        let _ = stream.write_all(request.as_bytes());
        thread::sleep(LAG);
        match stream.read(&mut part).expect("the page is not cut") {
            0 => break,
            len => page.extend(&part[..len]),
        }
    }
    let page = String::from_utf8(page).unwrap();
    let (head, body) = page.split_once("\r\n\r\n").unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    assert_eq!(body.len(), length.parse::<usize>().unwrap());
}

fn config(max_connection_age: Duration) -> Config {
    Config { serving_threads: 1, max_connection_age, ..Config::default() }
}
