//! Requests in any protocol, through the edge and the whole stack, to a store in memory.
//!
//! An input is an HTTP method and a path with its query on the first line, then
//! `NAME: VALUE` for each header, an empty line, and the body.

use bytes::Bytes;
use http::{Method, Request, Version, header::CONTENT_TYPE};
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
        let stack = layers::stack(router(&config), methods::find, &config, traces, InFlight::default(), None);
        let schema = served_files(true).map(Schema::new).expect("descriptors are compiled in");
        let service = Edge::new(stack, schema.expect("they are whole"), &config);
        let Some(Answer { head, bytes, is_whole, .. }) = answer(service, request).await else { return };
        let is_json = head.headers.get(CONTENT_TYPE).is_some_and(|value| value == "application/json");
        if is_json && !head.headers.contains_key("content-encoding") && is_whole {
            let answer: Value = serde_json::from_slice(&bytes).expect("JSON is well-formed");
            assert_eq!(answer.get("code").is_some(), head.status != 200, "{head:?} {answer}");
            assert_ne!(answer["message"], status::internal().message(), "a call panicked");
        }
    });
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
