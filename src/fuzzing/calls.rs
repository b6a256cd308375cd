//! Calls through the whole stack of layers, to a store in memory.
//!
//! An input is a method (`package.Service/Method`) on the first line, then `NAME: VALUE` for
//! each header, an empty line, and the message as protobuf.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header::CONTENT_TYPE, response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tokio::{runtime, time};
use tower_service::Service;

use crate::{
    config::{Config, StoreUrl},
    feed::Feed,
    layers::{self, InFlight},
    rpc::{
        call::{Call, Inbound},
        methods, status,
    },
    service::{Health, Router, StoreSlot},
    store,
    telemetry::TraceConfig,
};

/// How long an answer is waited for; only a stream has no end.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(20);

pub fn config() -> Config {
    Config { store_url: StoreUrl::Memory, call_log: false, ..Config::default() }
}

/// The router over a new store.
pub fn router(config: &Config) -> Router {
    let store = store::open(config).expect("a store in memory always opens");
    let slot = StoreSlot::default();
    slot.open(Arc::clone(&store), Feed::new(store, 1 << 20));
    Router::new(config, &slot, &Health::new(config))
}

pub fn run(input: &[u8]) {
    let Some(request) = request(input) else { return };
    block_on(async {
        let config = config();
        let traces = TraceConfig { sampler: None, follows_callers: true };
        let service =
            layers::stack(router(&config), methods::find, &config, traces, InFlight::default(), None).0;
        let Some(Answer { head, trailers, is_whole, .. }) = answer(service, request).await else { return };
        let ended = trailers.or_else(|| head.headers.contains_key("grpc-status").then_some(head.headers));
        assert!(ended.is_some() || !is_whole, "an answer without a status");
        ended.as_ref().map(check);
    });
}

pub fn block_on(task: impl Future<Output = ()>) {
    let runtime = runtime::Builder::new_current_thread().enable_time().build().expect("a runtime starts");
    runtime.block_on(task);
}

/// What came of an answer in time.
pub struct Answer {
    pub head: response::Parts,
    pub bytes: Vec<u8>,
    pub trailers: Option<HeaderMap>,
    pub is_whole: bool,
}

/// Calls, and reads the body until it ends or is late. `None` where no answer begins in time.
pub async fn answer<S, B>(mut service: S, request: Request<Inbound<Full<Bytes>>>) -> Option<Answer>
where
    S: Service<Request<Inbound<Full<Bytes>>>, Response = Response<B>, Error = Infallible>,
    B: Body<Data = Bytes>,
{
    let Ok(response) = time::timeout(ANSWER_TIMEOUT, service.call(request)).await.ok()?;
    let (head, body) = response.into_parts();
    let (mut body, mut bytes, mut trailers) = (pin!(body), Vec::new(), None);
    while let Ok(Some(frame)) = time::timeout(ANSWER_TIMEOUT, body.frame()).await {
        let Ok(frame) = frame else { panic!("a body fails") };
        match frame.into_data() {
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok().or(trailers),
        }
    }
    Some(Answer { head, bytes, trailers, is_whole: body.is_end_stream() })
}

/// The status is one of gRPC's, and not what a panic is answered with.
fn check(headers: &HeaderMap) {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let code: u8 = text("grpc-status").and_then(|code| code.parse().ok()).expect("a status is a number");
    assert!(code <= 16, "{headers:?}");
    let panicked = status::internal();
    assert!(
        i32::from(code) != panicked.code() as i32 || text("grpc-message") != Some(panicked.message()),
        "a call panicked"
    );
}

/// The first line of an input, its headers, and what follows the empty line. `None` where no
/// client could send it.
pub fn parts(input: &[u8]) -> Option<(&str, HeaderMap, &[u8])> {
    let at = input.windows(2).position(|bytes| bytes == b"\n\n").unwrap_or(input.len());
    let (head, body) = input.split_at(at);
    let mut lines = head.split(|byte| *byte == b'\n');
    let first = str::from_utf8(lines.next()?).ok()?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let at = line.windows(2).position(|bytes| bytes == b": ")?;
        let name = HeaderName::from_bytes(&line[..at]).ok()?;
        headers.append(name, HeaderValue::from_bytes(&line[at + 2..]).ok()?);
    }
    Some((first, headers, body.get(2..).unwrap_or_default()))
}

fn request(input: &[u8]) -> Option<Request<Inbound<Full<Bytes>>>> {
    let (path, headers, message) = parts(input)?;
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).ok()?.to_be_bytes());
    framed.extend(message);
    let mut request = Request::post(format!("/{path}")).body(Full::new(framed.into())).ok()?;
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    for (name, value) in &headers {
        request.headers_mut().append(name, value.clone());
    }
    Some(Inbound::request(request, Call::default()))
}
