//! Calls as browsers and scripts make them: Connect and gRPC-Web, over HTTP/2 and HTTP/1.1.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, task::JoinSet};

use crate::{Result, Which, calls::Calls, target::Target};

#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    which: Which,
    #[arg(long, value_enum)]
    protocol: Protocol,
    /// HTTP/1.1 instead of HTTP/2, with one call in flight on each connection.
    #[arg(long)]
    http1: bool,
    #[arg(long, default_value_t = 10)]
    connections: usize,
    /// Calls in flight on each connection of HTTP/2.
    #[arg(long, default_value_t = 20)]
    streams: usize,
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Protocol {
    Connect,
    ConnectJson,
    GrpcWeb,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

struct Run {
    calls: Calls,
    protocol: Protocol,
    target: Target,
    until: Instant,
}

/// Counts the calls that were answered as they should be.
pub async fn run(target: &Target, options: Options) -> Result<String> {
    let run = Rc::new(Run {
        calls: Calls::new(options.which),
        protocol: options.protocol,
        target: target.clone(),
        until: Instant::now() + Duration::from_secs_f64(options.seconds),
    });
    let mut workers = JoinSet::new();
    for _ in 0..options.connections {
        let stream = TcpStream::connect(target.addr).await?;
        stream.set_nodelay(true)?;
        let stream = TokioIo::new(stream);
        if options.http1 {
            let (sender, connection) = http1::handshake(stream).await?;
            tokio::task::spawn_local(connection);
            workers.spawn_local(Rc::clone(&run).work(Sender::Http1(sender)));
        } else {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
            tokio::task::spawn_local(connection);
            for _ in 0..options.streams {
                workers.spawn_local(Rc::clone(&run).work(Sender::Http2(sender.clone())));
            }
        }
    }
    let mut calls = 0;
    while let Some(ended) = workers.join_next().await {
        calls += ended??;
    }
    Ok(format!("{{\"calls\": {calls}}}"))
}

impl Run {
    async fn work(self: Rc<Self>, mut sender: Sender) -> std::result::Result<u64, String> {
        let mut calls = 0;
        while Instant::now() < self.until {
            self.call(&mut sender).await.map_err(|error| error.to_string())?;
            calls += 1;
        }
        Ok(calls)
    }

    async fn call(&self, sender: &mut Sender) -> Result<()> {
        let (content_type, body) = match self.protocol {
            // Without the five bytes of gRPC's framing.
            Protocol::Connect => ("application/proto", self.calls.request().slice(5..)),
            Protocol::ConnectJson => ("application/json", self.calls.json()?.into()),
            Protocol::GrpcWeb => ("application/grpc-web+proto", self.calls.request()),
        };
        let (addr, path) = (self.target.addr, self.calls.path());
        let mut head = match sender {
            Sender::Http1(_) => Request::post(path).header("host", addr.to_string()),
            Sender::Http2(_) => Request::post(format!("http://{addr}{path}")),
        }
        .header("content-type", content_type);
        if let Some(authorization) = &self.target.authorization {
            head = head.header("authorization", authorization);
        }
        let request = head.body(Full::new(body))?;
        let (head, body) = match sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        }
        .into_parts();
        let body = body.collect().await?.to_bytes();
        let (status, found) = (head.status, body.windows(12).any(|bytes| bytes == b"@example.com"));
        if found != self.calls.brings_users() || (found && status != StatusCode::OK) {
            return Err(format!("{path} by {content_type} answered {status}: {}", body.escape_ascii()).into());
        }
        Ok(())
    }
}
