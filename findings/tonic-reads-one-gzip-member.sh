#!/usr/bin/env bash
# tonic 0.14.9: of a message compressed with gzip only the first member is read.
#
# What gzip makes is a series of members, and what it decompresses to is all of them together (RFC
# 1952, section 2.2); gRPC's `grpc-encoding: gzip` refers to that format. Compressors that work in
# blocks, such as bgzip, and all who append to what is compressed already, make more than
# one. tonic's decoder stops at the end of the first member and drops the rest of the message
# without an error. What is left is often a good message of protobuf, because each prefix
# that ends between two fields is one: fields are missing, or an older value counts.
#
# Versions: tonic 0.14.9, tonic-health 0.14.9, flate2 1.1.11, h2 0.4.20, tokio 1.54.1 (crates.io).
# Output seen, of a server where "first" is SERVING and "second" is NOT_SERVING, of a
# HealthCheckRequest that names the one and then the other, so that the last one counts:
#   in one member: NOT_SERVING
#   in two members: SERVING
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
flate2 = "=1.1.11"
h2 = "=0.4.20"
http = "=1.5.0"
tokio = { version = "=1.54.1", features = ["io-util", "macros", "rt"] }
tokio-stream = "=0.1.19"
tonic = { version = "=0.14.9", features = ["gzip"] }
tonic-health = "=0.14.9"
TOML
cat >src/main.rs <<'RUST'
use std::io::{self, Write};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::Request;
use tokio::io::{DuplexStream, duplex};
use tonic::{codec::CompressionEncoding, transport::Server};
use tonic_health::{ServingStatus, server::health_reporter};

/// Field 1 of a HealthCheckRequest, `service`.
fn names(service: &str) -> Vec<u8> {
    [&[0x0a, u8::try_from(service.len()).unwrap()], service.as_bytes()].concat()
}

fn member(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// The status that the server answers a compressed message with: the last byte of the answer.
async fn check(client: &mut h2::client::SendRequest<Bytes>, packed: &[u8]) -> &'static str {
    let request = Request::post("http://localhost/grpc.health.v1.Health/Check")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-encoding", "gzip")
        .body(())
        .unwrap();
    let (answer, mut body) = client.send_request(request, false).unwrap();
    let length = u32::try_from(packed.len()).unwrap().to_be_bytes();
    body.send_data([&[1], &length[..], packed].concat().into(), true).unwrap();
    let answer = answer.await.unwrap().into_body().data().await.expect("an answer").unwrap();
    match answer.last() {
        Some(1) => "SERVING",
        Some(2) => "NOT_SERVING",
        other => panic!("{other:?}"),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (reporter, health) = health_reporter();
    reporter.set_service_status("first", ServingStatus::Serving).await;
    reporter.set_service_status("second", ServingStatus::NotServing).await;
    let (near, far) = duplex(1 << 20);
    let server = Server::builder().add_service(health.accept_compressed(CompressionEncoding::Gzip));
    tokio::spawn(server.serve_with_incoming(tokio_stream::once(Ok::<DuplexStream, io::Error>(far))));
    let (mut client, connection) = h2::client::handshake(near).await.unwrap();
    tokio::spawn(connection);
    let (first, second) = (names("first"), names("second"));
    let in_one = check(&mut client, &member(&[&first[..], &second].concat())).await;
    println!("in one member: {in_one}");
    let in_two = check(&mut client, &[member(&first), member(&second)].concat()).await;
    println!("in two members: {in_two}");
    assert_eq!((in_one, in_two), ("NOT_SERVING", "SERVING"), "the behaviour has changed");
}
RUST
cargo run --quiet
