//! Callers that would take everything.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use crate::{
    listener_only::until,
    raw_http2::{
        DATA, END_HEADERS, END_STREAM, Frame, HEADERS, PREFACE, Peer, SETTINGS, WINDOW_UPDATE, frame, head,
        head_of,
    },
    support::{Server, TEST_TIMEOUT},
    unread_answers::resident,
};

const WATCH: &str = "/user.v1.UserService/WatchUsers";
const LIST: &str = "/user.v1.UserService/ListUsers";
const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";

/// A connection from another loopback address.
pub fn stranger(addr: SocketAddr) -> Peer {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0)).into()).unwrap();
    socket.connect(&addr.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    stream.set_nodelay(true).unwrap();
    Peer::over(stream)
}

/// A connection that the server speaks on, if it does: where it closes instead, the preface
/// may not be written any more.
fn greeted(addr: SocketAddr) -> Option<Peer> {
    let mut peer = Peer::silent(addr);
    let preface = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    (peer.try_write(&preface) && peer.next().is_some()).then_some(peer)
}

/// Opens streams until one is refused, and returns how many there are.
fn open_streams(peer: &mut Peer, path: &str) -> usize {
    for stream in (1..199).step_by(2) {
        peer.send(HEADERS, END_HEADERS, stream, &head(path));
        peer.send(DATA, END_STREAM, stream, &[0; 5]);
    }
    let heads: Vec<Frame> = (0..99).map(|_| peer.wait_for(HEADERS)).collect();
    heads.iter().filter(|head| head.flags & END_STREAM == 0).count()
}

#[test]
fn a_connection_with_many_watches_leaves_room_for_another_caller() {
    let server = Server::start(&["--max-streaming-calls", "32", "--call-log", "false"]);
    let mut greedy = Peer::connect(server.grpc_addr);
    assert_eq!(open_streams(&mut greedy, WATCH), 28, "an eighth is left");
    let mut other = stranger(server.grpc_addr);
    assert_eq!(open_streams(&mut other, WATCH), 4);
    let mut health = Peer::connect(server.grpc_addr);
    assert_eq!(open_streams(&mut health, HEALTH_WATCH), 99, "they have a limit of their own");
}

#[test]
fn an_open_health_watch_takes_less_than_7_kib() {
    const CONNECTIONS: usize = 20;
    let server = Server::start(&["--call-log", "false"]);
    let watching = || {
        let mut peer = Peer::connect(server.grpc_addr);
        assert_eq!(open_streams(&mut peer, HEALTH_WATCH), 99);
        peer
    };
    // The first ones grow what all others share.
    let _first = [watching(), watching()];
    let before = resident(&server);
    let _held: Vec<_> = (0..CONNECTIONS).map(|_| watching()).collect();
    let each = resident(&server).saturating_sub(before) / (CONNECTIONS * 99);
    println!("{each} bytes each");
    assert!(each < 7 * 1_024, "{each} bytes each");
}

#[test]
fn an_address_with_many_connections_leaves_room_for_another_one() {
    let server = Server::start(&["--max-connections", "16", "--call-log", "false"]);
    let held: Vec<_> = (0..20).filter_map(|_| greeted(server.grpc_addr)).collect();
    assert_eq!(held.len(), 14);
    assert!(stranger(server.grpc_addr).next().is_some());
}

/// The streams of a connection that [`begin_requests`] begins.
const BEGUN: [u32; 16] = [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31];

/// Begins requests of 65,000 bytes, of which the last 5,000 do not come. They fit the window
/// of the connection.
fn begin_requests(peer: &mut Peer, content_type: &str) {
    // ListUsers with a field that it does not know.
    let mut begin: Vec<u8> = [&[0, 0, 0, 0xfd, 0xe8][..], &[0x7a, 0xe4, 0xfb, 3]].concat();
    if content_type == "application/json" {
        begin = b"{".to_vec();
    }
    begin.resize(60_005, if content_type.ends_with("json") { b' ' } else { 0 });
    // The connection's window is known once it has grown.
    peer.wait_for(WINDOW_UPDATE);
    for stream in BEGUN {
        peer.send(HEADERS, END_HEADERS, stream, &head_of(LIST, content_type));
        for part in begin.chunks(16_000) {
            peer.send(DATA, 0, stream, part);
        }
    }
}

#[test]
fn requests_that_one_address_never_ends_keep_no_other_address_out() {
    for content_type in ["application/grpc", "application/json", "application/grpc+json"] {
        // With such a limit a request has more than a minute to arrive.
        let patient = ["--max-request-bytes", "4194304", "--default-timeout-ms", "60000"];
        let server = Server::start(&[&patient[..], &["--call-log", "false"]].concat());
        // 38 MB in all.
        let mut hoarders: Vec<_> = (0..40).map(|_| Peer::connect(server.grpc_addr)).collect();
        for peer in &mut hoarders {
            begin_requests(peer, content_type);
        }
        let is_refused = |peer: &mut Peer| peer.so_far().iter().any(|frame| frame.kind == HEADERS);
        until("the hoarders have all they get", || hoarders.iter_mut().any(is_refused));
        let mut other = stranger(server.grpc_addr);
        begin_requests(&mut other, "application/grpc");
        for stream in BEGUN {
            other.send(DATA, END_STREAM, stream, &[0; 5_000]);
        }
        let mut begun = Vec::new();
        while begun.len() < BEGUN.len() {
            let head = other.wait_for(HEADERS);
            if !begun.contains(&head.stream) {
                assert_eq!(head.flags & END_STREAM, 0, "turned away next to {content_type}");
                begun.push(head.stream);
            }
        }
    }
}
