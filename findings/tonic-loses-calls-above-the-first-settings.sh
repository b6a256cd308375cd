#!/usr/bin/env bash
# tonic 0.14.9: calls that begin a connection fail where its server allows fewer than 100 streams.
#
# A client of HTTP/2 may begin calls before it has read the SETTINGS of its server. h2 takes 100
# for the limit on streams until then. A server that allows fewer refuses the others by
# REFUSED_STREAM, which says that it has done nothing, so that a client may send them again
# without asking (RFC 9113, section 8.7; gRFC A6 calls it transparent retry). tonic does not:
# callers get UNAVAILABLE, "h2 protocol error". The same calls wait for their turn where the
# connection has had a first one. Client and server are both tonic here, with tonic-health.
#
# Versions: tonic 0.14.9, tonic-health 0.14.9, tokio 1.54.1 (crates.io).
# Output seen:
#   100 calls at once, the connection's first: 10 OK, 90 Unavailable "h2 protocol error: http2 error"
#   100 calls at once, after a first one: 100 OK, 0 Unavailable "h2 protocol error: http2 error"
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
futures-util = "=0.3.34"
tokio = { version = "=1.54.1", features = ["macros", "net", "rt"] }
tokio-stream = { version = "=0.1.19", features = ["net"] }
tonic = "=0.14.9"
tonic-health = "=0.14.9"
TOML
cat >src/main.rs <<'RUST'
use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, transport::{Channel, Endpoint, Server}};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

const LOST: &str = "h2 protocol error: http2 error";

/// How many of so many calls are answered, and how many end with UNAVAILABLE.
async fn burst(channel: &Channel, calls: usize) -> (usize, usize) {
    let ends = join_all((0..calls).map(|_| async {
        HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await
    }))
    .await;
    let lost = ends.iter().filter(|end| {
        end.as_ref().is_err_and(|error| error.code() == Code::Unavailable && error.message() == LOST)
    });
    (ends.iter().filter(|end| end.is_ok()).count(), lost.count())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (_reporter, health) = tonic_health::server::health_reporter();
    let server = Server::builder().max_concurrent_streams(10).add_service(health);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let mut changed = false;
    for (warm, name) in [(false, "the connection's first"), (true, "after a first one")] {
        let channel = Endpoint::new(address.clone()).unwrap().connect_lazy();
        if warm {
            assert_eq!(burst(&channel, 1).await, (1, 0));
        }
        let (answered, lost) = burst(&channel, 100).await;
        println!("100 calls at once, {name}: {answered} OK, {lost} Unavailable {LOST:?}");
        changed |= answered + lost != 100 || (lost > 0) == warm;
    }
    assert!(!changed, "the behaviour has changed");
}
RUST
cargo run --quiet
