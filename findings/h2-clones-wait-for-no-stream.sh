#!/usr/bin/env bash
# h2 0.4.20: `ready()` of a cloned SendRequest does not wait for a free stream.
#
# `SendRequest::poll_ready` is documented to be ready "when the connection can initialize a new
# HTTP/2 stream", and the server says by SETTINGS_MAX_CONCURRENT_STREAMS how many it allows (RFC
# 9113, section 5.1.2). It waits only while a request that was sent with this very handle waits
# for its stream. A clone has sent none, so it is ready at once however many streams are open.
# A client that clones a handle for each request, as a pool does, is never held back: requests
# queue within h2 without bound, in the order in which they came, and their header fields are
# as old as their wait (a grpc-timeout among them says too much).
#
# Versions: h2 0.4.20, tokio 1.54.1, http 1.5.0 (crates.io).
# Output seen, of a server that allows 10 streams and answers none:
#   a clone for each request: 1000 taken, 10 at the server
#   one handle for all: 11 taken, 10 at the server
#
# Exits with another code than 0 where the behaviour has changed. Needs cargo.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
bytes = "=1.12.2"
h2 = "=0.4.20"
http = "=1.5.0"
tokio = { version = "=1.54.1", features = ["io-util", "macros", "rt", "time"] }
TOML
cat >src/main.rs <<'RUST'
use std::time::Duration;

use bytes::Bytes;
use h2::{client, server};
use http::Request;
use tokio::{io::duplex, sync::mpsc, time::timeout};

const ALLOWED: u32 = 10;
const OFFERED: usize = 1_000;

/// How many requests the client takes, and how many reach the server.
async fn offer(cloned: bool) -> (usize, usize) {
    let (near, far) = duplex(1 << 20);
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut connection =
            server::Builder::new().max_concurrent_streams(ALLOWED).handshake::<_, Bytes>(far).await.unwrap();
        // Kept, so that no stream ends.
        while let Some(request) = connection.accept().await {
            let Ok(request) = request else { break };
            let _ = arrived.send(request);
        }
    });
    let (send, mut connection) = client::handshake(near).await.unwrap();
    let mut pings = connection.ping_pong().unwrap();
    tokio::spawn(connection);
    // The answer to a PING comes after the server's SETTINGS.
    pings.ping(h2::Ping::opaque()).await.unwrap();
    let (mut used, mut answers) = (send.clone(), Vec::new());
    for _ in 0..OFFERED {
        let handle = if cloned { send.clone() } else { used };
        let Ok(handle) = timeout(Duration::from_millis(500), handle.ready()).await else { break };
        used = handle.unwrap();
        let request = Request::post("http://localhost/").body(()).unwrap();
        answers.push(used.send_request(request, true).unwrap().0);
        // The connection opens a stream for it, if it may.
        tokio::task::yield_now().await;
    }
    let mut at_server = Vec::new();
    while let Ok(Some(request)) = timeout(Duration::from_millis(500), arrivals.recv()).await {
        at_server.push(request);
    }
    (answers.len(), at_server.len())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut seen = Vec::new();
    for (cloned, name) in [(true, "a clone for each request"), (false, "one handle for all")] {
        let (taken, at_server) = offer(cloned).await;
        println!("{name}: {taken} taken, {at_server} at the server");
        seen.push((taken, at_server));
    }
    assert_eq!(seen, [(1_000, 10), (11, 10)], "the behaviour has changed");
}
RUST
cargo run --quiet
