//! A client of plain HTTP, as browsers and curl are one.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::{io::Write, net::SocketAddr};

use bytes::{Bytes, BytesMut};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::{net::TcpStream, runtime::Runtime, sync::Mutex, time::timeout};

use super::TEST_TIMEOUT;

/// A connection without TLS, and the runtime that it needs.
pub struct WebClient {
    runtime: Runtime,
    send: Sender,
}

enum Sender {
    Http1(Mutex<http1::SendRequest<Full<Bytes>>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// An answer that was read to its end.
#[derive(Debug)]
pub struct Whole {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl WebClient {
    /// Over HTTP/1.1.
    pub fn connect_http1(addr: SocketAddr) -> Self {
        let runtime = Runtime::new().unwrap();
        let send = runtime.block_on(async {
            let stream = TcpStream::connect(addr).await.unwrap();
            let (send, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            drop(tokio::spawn(connection));
            send
        });
        Self { runtime, send: Sender::Http1(Mutex::new(send)) }
    }

    /// Over HTTP/2.
    pub fn connect(addr: SocketAddr) -> Self {
        let runtime = Runtime::new().unwrap();
        let send = runtime.block_on(async {
            let stream = TcpStream::connect(addr).await.unwrap();
            let (send, connection) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
            drop(tokio::spawn(connection));
            send
        });
        Self { runtime, send: Sender::Http2(send) }
    }

    /// The head of the answer, and its body to come.
    pub fn begin(&self, request: Request<Bytes>) -> Response<Incoming> {
        let exchange = async {
            match &self.send {
                Sender::Http2(send) => send.clone().send_request(request.map(Full::new)).await.unwrap(),
                Sender::Http1(send) => {
                    let (mut head, body) = request.into_parts();
                    head.headers.insert("host", head.uri.authority().unwrap().as_str().parse().unwrap());
                    head.uri = head.uri.path_and_query().unwrap().as_str().parse().unwrap();
                    let mut send = send.lock().await;
                    send.ready().await.unwrap();
                    send.send_request(Request::from_parts(head, Full::new(body))).await.unwrap()
                }
            }
        };
        self.runtime
            .block_on(async { timeout(TEST_TIMEOUT, exchange).await.expect("it is answered in time") })
    }

    pub fn ask(&self, request: Request<Bytes>) -> Whole {
        let (head, body) = self.begin(request).into_parts();
        let collected = async { timeout(TEST_TIMEOUT, body.collect()).await.expect("it ends in time") };
        let body = self.runtime.block_on(collected).unwrap();
        let trailers = body.trailers().cloned();
        let (status, headers) = (head.status.as_u16(), head.headers);
        Whole { status, headers, body: body.to_bytes(), trailers }
    }

    /// A call with this content type.
    pub fn post(&self, path: &str, content_type: &str, body: impl Into<Bytes>) -> Whole {
        self.ask(post(path, content_type).body(body.into()).unwrap())
    }

    /// A call in JSON.
    pub fn json(&self, method: &str, body: &str) -> Whole {
        self.post(&format!("/user.v1.UserService/{method}"), "application/json", body.to_owned())
    }

    /// The next bytes of a body that goes on; `None` at its end.
    pub fn next(&self, body: &mut Incoming) -> Option<Bytes> {
        let frame = async { timeout(TEST_TIMEOUT, body.frame()).await.expect("it goes on") };
        let frame = self.runtime.block_on(frame)?;
        Some(frame.unwrap().into_data().unwrap_or_default())
    }
}

impl Whole {
    /// The body, which is JSON.
    #[track_caller]
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Ends the test unless the HTTP status is this one.
    #[track_caller]
    pub fn with_status(self, status: StatusCode) -> Self {
        assert_eq!(self.status, status.as_u16(), "{self:?}");
        self
    }

    /// The HTTP status, the code, and the reason in the details, of an error of Connect.
    #[track_caller]
    pub fn error(&self) -> (u16, String, String) {
        assert_eq!(self.headers["content-type"], "application/json", "{self:?}");
        let (code, reason) = code_and_reason(&self.value());
        (self.status, code, reason)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// The code and the reason of an error in JSON.
#[track_caller]
pub fn code_and_reason(error: &Value) -> (String, String) {
    let details = error["details"].as_array().unwrap_or_else(|| panic!("no details in {error}"));
    let info = details.iter().find(|detail| detail["type"] == "google.rpc.ErrorInfo").expect("a reason");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&error["code"]), text(&info["debug"]["reason"]))
}

/// The head of a call.
pub fn post(path: &str, content_type: &str) -> http::request::Builder {
    Request::post(format!("http://test{path}")).header("content-type", content_type)
}

/// The frames of a body.
#[track_caller]
pub fn frames(mut body: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((prefix, rest)) = body.split_at_checked(5) {
        let len = u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize;
        frames.push((prefix[0], rest[..len].to_vec()));
        body = &rest[len..];
    }
    assert!(body.is_empty(), "{body:?} is no frame");
    frames
}

/// Reads a stream a frame at a time, however its bytes are cut.
pub struct FrameStream<'a> {
    client: &'a WebClient,
    body: Incoming,
    bytes: BytesMut,
}

impl<'a> FrameStream<'a> {
    pub fn of(client: &'a WebClient, response: Response<Incoming>) -> Self {
        Self { client, body: response.into_body(), bytes: BytesMut::new() }
    }

    /// The next frame; `None` at the end.
    pub fn next(&mut self) -> Option<(u8, Bytes)> {
        loop {
            if let Some((prefix, rest)) = self.bytes.split_at_checked(5) {
                let len = u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize;
                if rest.len() >= len {
                    let frame = self.bytes.split_to(5 + len).freeze();
                    return Some((frame[0], frame.slice(5..)));
                }
            }
            self.bytes.extend_from_slice(&self.client.next(&mut self.body)?);
        }
    }
}

pub fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

pub fn gunzip(packed: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut GzDecoder::new(packed), &mut plain).unwrap();
    plain
}
