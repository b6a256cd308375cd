#!/usr/bin/env bash
# hyper 1.12.0 closes an HTTP/1.1 connection after an early answer and does not announce it.
#
# A service answers before the body of its request has come, and drops the body. Where the
# answer has a content-length, hyper sends it without `connection: close`, and then closes
# the connection as soon as the answer is written. A client may take the connection for a
# persistent one (RFC 9112, section 9.3), sends the rest and the next request, and loses
# that request. RFC 9112, section 9.6, wants the `close` option in the last answer. A body
# that is there already when the answer is written is discarded, and the connection stays.
#
# Versions: hyper 1.12.0, hyper-util 0.1.21, http-body-util 0.1.5, tokio 1.54.1 (crates.io).
# Output seen:
#   the rest of the body comes with the head: close announced false, next request answered true
#   the rest of the body comes after the answer: close announced false, next request answered false
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
http-body-util = "=0.1.5"
hyper = { version = "=1.12.0", features = ["http1", "server"] }
hyper-util = { version = "=0.1.21", features = ["tokio"] }
tokio = { version = "=1.54.1", features = ["io-util", "macros", "net", "rt"] }
TOML
cat >src/main.rs <<'RUST'
use http_body_util::Full;
use hyper::{Request, Response, body::{Bytes, Incoming}, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use tokio::{io::{AsyncReadExt, AsyncWriteExt}, net::{TcpListener, TcpStream}};

const BODY: &[u8] = &[b'x'; 1000];

async fn early(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(Bytes::from_static(b"early\n"))))
}

/// The next answer, or nothing where the connection has ended.
async fn answer(client: &mut TcpStream) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"early\n") {
        match client.read_buf(&mut read).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return String::new(),
        }
    }
    String::from_utf8(read).unwrap().to_lowercase()
}

async fn exchange(with_the_head: bool) -> (bool, bool) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(server), service_fn(early)));
    let mut first = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n".to_vec();
    if with_the_head {
        first.extend(BODY);
    }
    client.write_all(&first).await.unwrap();
    let announced = answer(&mut client).await.contains("connection: close");
    if !with_the_head {
        let _ = client.write_all(BODY).await;
    }
    let _ = client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    (announced, !answer(&mut client).await.is_empty())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    for (with_the_head, name, expected) in [(true, "with the head", true), (false, "after the answer", false)] {
        let (announced, answered) = exchange(with_the_head).await;
        println!("the rest of the body comes {name}: close announced {announced}, next request answered {answered}");
        assert_eq!((announced, answered), (false, expected));
    }
}
RUST
cargo run --quiet
