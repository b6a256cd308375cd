//! Callers that would take everything.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use crate::{
    raw_http2::{DATA, END_HEADERS, END_STREAM, Frame, HEADERS, PREFACE, Peer, SETTINGS, frame, head},
    support::{Server, TEST_TIMEOUT},
    unread_answers::resident,
};

const WATCH: &str = "/user.v1.UserService/WatchUsers";
const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";

/// A connection from another loopback address.
fn stranger(addr: SocketAddr) -> Peer {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0)).into()).unwrap();
    socket.connect(&addr.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
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
