//! Requests that never end.

use crate::{
    raw_http2::{DATA, END_HEADERS, END_STREAM, HEADERS, Peer, head},
    support::Server,
};

const GET: &str = "/user.v1.UserService/GetUser";
const CREATE: &str = "/user.v1.UserService/CreateUser";

/// Begins calls and announces a message of one byte in each, which does not come.
fn hoard(peer: &mut Peer, streams: u32, path: &str) {
    for stream in (0..streams).map(|n| 2 * n + 1) {
        peer.send(HEADERS, END_HEADERS, stream, &head(path));
        peer.send(DATA, 0, stream, &[0, 0, 0, 0, 1]);
    }
    let answers = peer.so_far().into_iter().filter(|frame| frame.kind == HEADERS).count();
    assert_eq!(answers, 0, "none is turned away");
}

#[test]
fn requests_that_never_end_keep_nobody_out() {
    let server = Server::start(&["--max-unary-calls", "4", "--store-queue", "3", "--call-log", "false"]);
    let mut hoarders = [Peer::connect(server.grpc_addr), Peer::connect(server.grpc_addr)];
    hoard(&mut hoarders[0], 50, GET);
    hoard(&mut hoarders[1], 50, CREATE);
    let mut honest = Peer::connect(server.grpc_addr);
    for stream in (1..20).step_by(2) {
        honest.send(HEADERS, END_HEADERS, stream, &head("/user.v1.UserService/ListUsers"));
        honest.send(DATA, END_STREAM, stream, &[0; 5]);
        // Turned away it would be all in its head.
        assert_eq!(honest.wait_for(HEADERS).flags & END_STREAM, 0, "the call was turned away");
        honest.wait_for_answer(stream);
    }
}
