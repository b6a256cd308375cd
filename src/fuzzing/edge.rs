//! Requests in any protocol, through the edge and the whole stack, to a store in memory.
//!
//! An input is an HTTP method and a path with its query on the first line, then
//! `NAME: VALUE` for each header, an empty line, and the body.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Version, header::CONTENT_TYPE};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio::{runtime, time};
use tower_service::Service;

use super::calls::{config, router};
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

/// How long an answer is waited for; only a stream has no end.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(20);

pub fn run(input: &[u8]) {
    let Some(request) = request(input) else { return };
    let runtime = runtime::Builder::new_current_thread().enable_time().build().expect("a runtime starts");
    runtime.block_on(async {
        let config = config();
        let traces = TraceConfig { sampler: None, follows_callers: true };
        let stack = layers::stack(router(&config), methods::find, &config, traces, InFlight::default(), None);
        let schema = served_files(true).map(Schema::new).expect("descriptors are compiled in");
        let mut service = Edge::new(stack, schema.expect("they are whole"), &config);
        let Ok(answered) = time::timeout(ANSWER_TIMEOUT, service.call(request)).await else { return };
        let Ok(response) = answered;
        let (head, body) = response.into_parts();
        let (mut body, mut bytes) = (pin!(body), Vec::new());
        while let Ok(Some(frame)) = time::timeout(ANSWER_TIMEOUT, body.frame()).await {
            let Ok(frame) = frame else { panic!("a body fails") };
            bytes.extend_from_slice(&frame.into_data().unwrap_or_default());
        }
        let is_json = head.headers.get(CONTENT_TYPE).is_some_and(|value| value == "application/json");
        if is_json && !head.headers.contains_key("content-encoding") && body.is_end_stream() {
            let answer: Value = serde_json::from_slice(&bytes).expect("JSON is well-formed");
            assert_eq!(answer.get("code").is_some(), head.status != 200, "{head:?} {answer}");
            assert_ne!(answer["message"], status::internal().message(), "a call panicked");
        }
    });
}

/// `None` where no client could send it.
fn request(input: &[u8]) -> Option<Request<Inbound<Full<Bytes>>>> {
    let at = input.windows(2).position(|bytes| bytes == b"\n\n").unwrap_or(input.len());
    let (head, body) = input.split_at(at);
    let body = Bytes::copy_from_slice(body.get(2..).unwrap_or_default());
    let mut lines = head.split(|byte| *byte == b'\n');
    let (method, path) = str::from_utf8(lines.next()?).ok()?.split_once(' ')?;
    let method = Method::from_bytes(method.as_bytes()).ok()?;
    let request = Request::builder().method(method).uri(path).version(Version::HTTP_2);
    let mut request = request.body(Full::new(body)).ok()?;
    for line in lines {
        let at = line.windows(2).position(|bytes| bytes == b": ")?;
        let name = HeaderName::from_bytes(&line[..at]).ok()?;
        request.headers_mut().append(name, HeaderValue::from_bytes(&line[at + 2..]).ok()?);
    }
    Some(Inbound::request(request, Call::default()))
}
