//! Answers that nobody reads.

use std::{fs, io::Read, net::TcpStream};

use crate::{
    lingering_close::fill,
    listener_only::until,
    raw_http2::{DATA, END_HEADERS, END_STREAM, HEADERS, Peer, SETTINGS, WINDOW_UPDATE, head},
    shares::stranger,
    support::Server,
};

const LIST: &str = "/user.v1.UserService/ListUsers";

fn list(peer: &mut Peer, stream: u32) {
    peer.send(HEADERS, END_HEADERS, stream, &head(LIST));
    // page_size is 1,000.
    peer.send(DATA, END_STREAM, stream, &[0, 0, 0, 0, 3, 8, 0xe8, 7]);
}

/// Memory that is resident, in bytes.
pub fn resident(server: &Server) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1_024
}

#[test]
fn answers_that_nobody_reads_take_up_little_and_keep_no_other_address_out() {
    let server = Server::start(&["--call-log", "false", "--handshake-timeout-ms", "2000"]);
    fill(&server, 1_000);
    let before = resident(&server);
    let mut hoarders: Vec<_> = (0..12)
        .map(|_| {
            let mut peer = Peer::connect(server.grpc_addr);
            // A window of nothing.
            peer.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
            peer.wait_for(SETTINGS);
            peer
        })
        .collect();
    // From its handshake's deadline on, a connection has no other for minutes.
    let silent = TcpStream::connect(server.grpc_addr).unwrap().read(&mut [0]);
    assert!(matches!(silent, Ok(0)), "{silent:?}");
    for peer in &mut hoarders {
        for stream in (1..199).step_by(2) {
            list(peer, stream);
        }
    }
    for peer in &mut hoarders {
        let refused = |peer: &mut Peer| peer.wait_for(HEADERS).flags & END_STREAM != 0;
        until("a call too many is refused", || refused(peer));
    }
    let growth = resident(&server).saturating_sub(before);
    assert!(growth < 160 << 20, "{} MiB more", growth >> 20);
    let is_served = |mut honest: Peer| {
        honest.send(SETTINGS, 0, 0, &[0, 4, 0, 0x7f, 0, 0]);
        honest.send(WINDOW_UPDATE, 0, 0, &(1_u32 << 20).to_be_bytes());
        list(&mut honest, 1);
        let listed = honest.wait_for(HEADERS).flags & END_STREAM == 0;
        if listed {
            honest.wait_for_answer(1);
        }
        listed
    };
    assert!(is_served(stranger(server.grpc_addr)), "another address was turned away");
    until("an honest caller of the same address is served", || is_served(Peer::connect(server.grpc_addr)));
}
