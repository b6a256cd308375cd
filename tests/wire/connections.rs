//! The life of connections: who gets in, who must go, and how.

use std::{collections::HashMap, net::TcpStream, time::Duration};

use crate::{
    listener_only::{ListenerOnly, closed, until},
    raw_http2::{ALL_STREAMS, DATA, GOAWAY, NO_ERROR, PING, PREFACE, Peer},
    support::TEST_TIMEOUT,
};
use user_service::{config::Config, listener::Drained};

/// A time limit that passes within a test, and in which a peer on a busy machine has
/// connected and sent its first call.
const SHORT: Duration = Duration::from_secs(1);

fn config() -> Config {
    Config { serving_threads: 1, ..Config::default() }
}

#[test]
fn over_the_cap_a_connection_is_refused_until_another_ends() {
    let server = ListenerOnly::serve(Config { max_connections: 2, ..config() });
    let mut first = Peer::connect(server.addr);
    let mut second = Peer::connect(server.addr);
    for peer in [&mut first, &mut second] {
        peer.call(1, "/now");
        peer.wait_for_answer(1);
    }
    assert_eq!(Peer::silent(server.addr).rest(), []);
    assert_eq!(server.metric("grpc_server_connections_refused_total"), 1);
    drop(first);
    server.wait_for_metric(&closed("client"), 1);
    until("a permit is free", || {
        let mut peer = Peer::silent(server.addr);
        peer.try_write(PREFACE) && peer.next().is_some()
    });
}

#[test]
fn whoever_does_not_shake_hands_is_cut_at_the_deadline() {
    let server = ListenerOnly::serve(Config { handshake_timeout: SHORT, ..config() });
    let mut honest = Peer::connect(server.addr);
    honest.so_far();
    let mut silent = Peer::silent(server.addr);
    let mut half = Peer::silent(server.addr);
    half.write(PREFACE);
    silent.rest();
    half.rest();
    server.wait_for_metric(&closed("handshake"), 2);
    honest.call(1, "/now");
    honest.wait_for_answer(1);
}

#[test]
fn a_dripping_peer_gains_no_time() {
    let server = ListenerOnly::serve(Config { handshake_timeout: SHORT, ..config() });
    let mut dripping = Peer::silent(server.addr);
    let mut bytes = PREFACE.iter().chain([0, 0x40, 0, 4, 0].iter()).chain(std::iter::repeat(&0));
    until("the peer is cut", || !dripping.try_write(&[*bytes.next().unwrap()]));
    server.wait_for_metric(&closed("handshake"), 1);
}

#[test]
fn an_old_connection_is_told_to_go_and_all_its_calls_are_served() {
    let server = ListenerOnly::serve(Config { max_connection_age: SHORT, ..config() });
    let mut peer = Peer::connect(server.addr);
    peer.call(1, "/wait");
    assert_eq!(peer.wait_for(GOAWAY).goaway(), (ALL_STREAMS, NO_ERROR));
    let ping = peer.wait_for(PING);
    // Sent before the GOAWAY was read, for all the server knows.
    peer.call(3, "/now");
    peer.wait_for_answer(3);
    peer.pong(&ping);
    assert_eq!(peer.wait_for(GOAWAY).goaway(), (3, NO_ERROR));
    server.open(1);
    peer.wait_for_answer(1);
    peer.rest();
    server.wait_for_metric(&closed("age"), 1);
    assert_eq!(server.metric("grpc_server_calls_cut_total"), 0);
}

#[test]
fn an_old_connection_that_stays_is_cut_after_its_grace() {
    let spans = Config { max_connection_age: SHORT, max_connection_age_grace: SHORT, ..config() };
    let server = ListenerOnly::serve(spans);
    let mut peer = Peer::connect(server.addr);
    peer.call(1, "/wait");
    peer.rest();
    server.wait_for_metric(&closed("age"), 1);
    assert_eq!(server.metric("grpc_server_calls_cut_total"), 1);
}

#[test]
fn a_connection_is_idle_only_without_calls() {
    let server = ListenerOnly::serve(Config { max_connection_idle: SHORT, ..config() });
    let mut busy = Peer::connect(server.addr);
    busy.call(1, "/wait-in-body");
    let mut idle = Peer::connect(server.addr);
    idle.call(1, "/now");
    idle.wait_for_answer(1);
    let told = idle.wait_for(GOAWAY);
    assert_eq!(told.goaway(), (ALL_STREAMS, NO_ERROR));
    assert!(busy.so_far().iter().all(|frame| frame.kind != GOAWAY));
    server.open(1);
    busy.wait_for_answer(1);
    busy.wait_for(GOAWAY);
}

#[test]
fn a_dead_peer_is_found_by_its_silence() {
    let spans = Config { keepalive_interval: SHORT, keepalive_timeout: SHORT, ..config() };
    let server = ListenerOnly::serve(spans);
    let mut peer = Peer::connect(server.addr);
    peer.wait_for(PING);
    peer.rest();
    server.wait_for_metric(&closed("keepalive"), 1);
}

#[test]
fn a_drain_closes_the_port_and_serves_what_was_begun() {
    let mut server = ListenerOnly::serve(config());
    let mut peer = Peer::connect(server.addr);
    peer.call(1, "/wait");
    peer.call(3, "/wait-in-body");
    assert!(peer.so_far().iter().all(|frame| frame.kind != GOAWAY));
    let drain = server.drain(TEST_TIMEOUT);
    assert_eq!(peer.wait_for(GOAWAY).goaway(), (ALL_STREAMS, NO_ERROR));
    assert!(TcpStream::connect(server.addr).is_err(), "the port is still open");
    let ping = peer.wait_for(PING);
    peer.call(5, "/now");
    peer.pong(&ping);
    peer.wait_for_answer(5);
    server.open(2);
    peer.rest();
    assert_eq!(server.wait(drain), Drained::default());
    assert_eq!(server.metric(&closed("drain")), 1);
    assert_eq!(server.metric("grpc_server_connections{state=\"closing\"}"), 0);
}

#[test]
fn a_peer_that_never_spoke_does_not_hold_up_a_drain() {
    let mut server = ListenerOnly::serve(Config { handshake_timeout: TEST_TIMEOUT, ..config() });
    let mut silent = Peer::silent(server.addr);
    server.wait_for_metric("grpc_server_connections{state=\"handshake\"}", 1);
    let drain = server.drain(2 * TEST_TIMEOUT);
    assert_eq!(server.wait(drain), Drained::default());
    silent.rest();
}

#[test]
fn only_calls_hold_up_a_drain() {
    let mut server = ListenerOnly::serve(config());
    let mut mute = Peer::connect(server.addr);
    mute.call(1, "/now");
    mute.wait_for_answer(1);
    let mut busy = Peer::connect(server.addr);
    busy.call(1, "/wait");
    busy.so_far();
    let drain = server.drain(2 * TEST_TIMEOUT);
    // Neither answers the PING that comes with the GOAWAY.
    mute.rest();
    assert!(busy.so_far().iter().all(|frame| frame.kind != DATA), "the call has ended");
    server.open(1);
    busy.wait_for_answer(1);
    busy.rest();
    assert_eq!(server.wait(drain), Drained::default());
    assert_eq!(server.metric(&closed("drain")), 2);
}

#[test]
fn what_outlasts_a_drain_is_cut_and_counted() {
    let mut server = ListenerOnly::serve(config());
    let mut peers = [Peer::connect(server.addr), Peer::connect(server.addr), Peer::connect(server.addr)];
    peers[0].call(1, "/wait");
    peers[0].call(3, "/wait-in-body");
    peers[1].call(1, "/wait");
    for peer in &mut peers {
        peer.so_far();
    }
    // Before a connection without calls has had its second to leave by itself.
    let drain = server.drain(SHORT / 2);
    assert_eq!(server.wait(drain), Drained { connections_cut: 3, calls_cut: 3 });
    for peer in &mut peers {
        peer.rest();
    }
    assert_eq!(server.metric(&closed("drain_cut")), 3);
    assert_eq!(server.metric("grpc_server_calls_cut_total"), 3);
}

#[test]
fn connections_are_shared_out_evenly_and_every_thread_ticks() {
    let server = ListenerOnly::serve(Config { serving_threads: 3, ..config() });
    let mut shares = HashMap::new();
    let mut peers = Vec::new();
    for _ in 0..6 {
        let mut peer = Peer::connect(server.addr);
        peer.call(1, "/now");
        let thread = String::from_utf8(peer.wait_for(DATA).payload).unwrap();
        *shares.entry(thread).or_insert(0) += 1;
        peers.push(peer);
    }
    assert_eq!(shares, ["serve-0", "serve-1", "serve-2"].map(|name| (name.to_owned(), 2)).into());
    until("every thread ticks", || [0, 1, 2].iter().all(|thread| server.ticked().contains(thread)));
}
