//! A server that has run out of descriptors.

use std::{
    net::TcpStream,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::{
    listener_only::until,
    raw_http2::{Peer, SETTINGS},
    support::{
        Server,
        http::{ask, value},
    },
};

/// More peers than the server below has descriptors.
const PEERS: usize = 200;

#[test]
fn without_descriptors_it_waits_and_then_serves_again() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 100; exec \"$0\" --store-url memory: --max-connections 1000"]);
    command.arg(env!("CARGO_BIN_EXE_user-service"));
    let mut server = Server::spawn(command);
    let began = Instant::now();
    let peers: Vec<_> = (0..PEERS).map(|_| Peer::silent(server.grpc_addr)).collect();
    server.wait_for_line("connections cannot be accepted");
    let scrape = TcpStream::connect(server.admin_addr).unwrap();
    server.wait_for_line("admin");
    // What is observed: a loop that spins counts up thousands in this time.
    thread::sleep(Duration::from_millis(500));
    drop((peers, scrape));
    until("a peer is served", || {
        let mut peer = Peer::connect(server.grpc_addr);
        peer.next().is_some_and(|frame| frame.kind == SETTINGS)
    });
    let errors = metric(&server, "user_service_accept_errors_total{port=\"grpc\"}");
    // Pauses double from 5 ms to 1 s, so there are eight attempts in the first second.
    let most = 10 + began.elapsed().as_secs();
    assert!((1..=most).contains(&errors), "{errors} attempts to accept, and not {most}");
    for port in ["grpc", "admin"] {
        let of_port = |line: &&String| line.contains("accept") && line.contains(port);
        let warnings: Vec<_> = server.log().iter().filter(of_port).collect();
        assert!(warnings.len() <= 2, "{warnings:?}");
    }
}

fn metric(server: &Server, series: &str) -> u64 {
    let page = ask(server.admin_addr, "GET /metrics").body;
    value(&page, series).unwrap_or_else(|| panic!("no {series} in\n{page}"))
}
