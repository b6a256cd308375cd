//! Requests in any protocol, through the edge and the whole stack, to a store in memory.
//!
//! An input is an HTTP method and a path with its query on the first line, then
//! `NAME: VALUE` for each header, an empty line, and the body.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Version, header::CONTENT_TYPE};
use http_body_util::Full;
use serde_json::Value;

use super::calls::{Answer, answer, block_on, config, parts, router};
use crate::{
    edge::{Edge, Schema},
    layers::{self, InFlight},
    rpc::{
        call::{Call, Inbound},
        methods, status,
    },
    service::served_files,
    telemetry::TraceConfig,
};

pub fn run(input: &[u8]) {
    let Some(request) = request(input) else { return };
    block_on(async {
        let config = config();
        let traces = TraceConfig { sampler: None, follows_callers: true };
        let stack =
            layers::stack(router(&config), methods::find, &config, traces, InFlight::default(), None).0;
        let schema = served_files(true).map(Schema::new).expect("descriptors are compiled in");
        let service = Edge::new(stack, schema.expect("they are whole"), &config);
        if let Some(answer) = answer(service, request).await.filter(|answer| answer.is_whole) {
            check(&answer);
        }
    });
}

/// A whole answer has a status where its protocol puts it.
fn check(Answer { head, bytes, trailers, .. }: &Answer) {
    let kind = head.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let is_packed = head.headers.contains_key("content-encoding");
    let has_status = head.headers.contains_key("grpc-status");
    let has_status = match str::from_utf8(kind).expect("a content type is ASCII") {
        "application/json" if !is_packed => {
            let answer: Value = serde_json::from_slice(bytes).expect("JSON is well-formed");
            assert_ne!(answer["message"], status::internal().message(), "a call panicked");
            answer.get("code").is_some() == (head.status != 200)
        }
        kind if kind.starts_with("application/grpc-web-text") => has_status || is_web_status(&decoded(bytes)),
        kind if kind.starts_with("application/grpc-web") => has_status || is_web_status(bytes),
        kind if kind.starts_with("application/grpc") => {
            has_status || trailers.as_ref().is_some_and(|trailers| trailers.contains_key("grpc-status"))
        }
        kind if kind.starts_with("application/connect+") => {
            last_frame(bytes).is_some_and(|(flag, _)| flag & 2 != 0)
        }
        _ => true,
    };
    assert!(has_status, "an answer without a status: {head:?}");
}

/// Whether the last frame has the trailers, and the trailers a status.
fn is_web_status(bytes: &[u8]) -> bool {
    last_frame(bytes).is_some_and(|(flag, trailers)| {
        flag == 0x80 && trailers.split(|byte| *byte == b'\n').any(|line| line.starts_with(b"grpc-status: "))
    })
}

/// The flag and the message of the last frame, where all frames are whole.
fn last_frame(mut bytes: &[u8]) -> Option<(u8, &[u8])> {
    let mut last = None;
    while let Some((&[flag, len @ ..], rest)) = bytes.split_first_chunk::<5>() {
        let (message, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(len)).ok()?)?;
        last = Some((flag, message));
        bytes = rest;
    }
    last.filter(|_| bytes.is_empty())
}

/// The bytes of base64 that may be padded in its midst.
fn decoded(text: &[u8]) -> Vec<u8> {
    text.chunks(4).flat_map(|group| STANDARD.decode(group).expect("it is base64")).collect()
}

fn request(input: &[u8]) -> Option<Request<Inbound<Full<Bytes>>>> {
    let (first, headers, body) = parts(input)?;
    let (method, path) = first.split_once(' ')?;
    let method = Method::from_bytes(method.as_bytes()).ok()?;
    let request = Request::builder().method(method).uri(path).version(Version::HTTP_2);
    let mut request = request.body(Full::new(Bytes::copy_from_slice(body))).ok()?;
    *request.headers_mut() = headers;
    Some(Inbound::request(request, Call::default()))
}
