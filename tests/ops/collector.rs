//! A collector of spans, as small as can be.

use std::{
    convert::Infallible,
    io::Read,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Receiver},
    },
    thread,
};

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{Span, span::SpanKind},
};
use prost::Message;
use tokio::net::TcpListener;

use crate::support::TEST_TIMEOUT;

/// Takes spans for as long as the test runs.
pub struct Collector {
    pub addr: SocketAddr,
    exports: Receiver<ExportTraceServiceRequest>,
    /// How many exports came packed.
    pub packed: Arc<AtomicUsize>,
    /// The last `authorization` that came.
    authorization: Arc<Mutex<String>>,
}

impl Collector {
    /// Listens in a thread of its own, so that a test may block.
    pub fn start() -> Self {
        Self::answering(Vec::new())
    }

    /// One that says this to everything, under the status 200.
    pub fn answering(answer: Vec<u8>) -> Self {
        Self::with(&Response::new(Bytes::from(answer)))
    }

    /// One that sends everybody elsewhere, or fails.
    pub fn refusing(status: u16, location: &str) -> Self {
        let response = Response::builder().status(status).header("location", location);
        Self::with(&response.body(Bytes::new()).unwrap())
    }

    fn with(answer: &Response<Bytes>) -> Self {
        let answer = answer.clone();
        let (sender, exports) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let packed = Arc::new(AtomicUsize::new(0));
        let counted = packed.clone();
        let authorization = Arc::new(Mutex::new(String::new()));
        let noted = authorization.clone();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    let (sender, answer, packed) = (sender.clone(), answer.clone(), counted.clone());
                    let noted = noted.clone();
                    let service = service_fn(move |request: Request<Incoming>| {
                        if let Some(authorization) = request.headers().get("authorization") {
                            authorization.to_str().unwrap().clone_into(&mut noted.lock().unwrap());
                        }
                        if request.headers().contains_key("content-encoding") {
                            packed.fetch_add(1, Ordering::Relaxed);
                        }
                        take(request, sender.clone(), answer.clone())
                    });
                    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    drop(tokio::spawn(connection));
                }
            });
        });
        Self { addr: told.recv().unwrap(), exports, packed, authorization }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The last `authorization` that came.
    pub fn authorization(&self) -> String {
        self.authorization.lock().unwrap().clone()
    }

    /// The next export, which must come.
    pub fn export(&self) -> ExportTraceServiceRequest {
        self.exports.recv_timeout(TEST_TIMEOUT).expect("spans are sent in time")
    }

    /// Waits for spans until there are `count`, and returns them with their resource.
    pub fn spans(&self, count: usize) -> (Resource, Vec<Span>) {
        let (mut resource, mut all) = (Resource::default(), Vec::new());
        while all.len() < count {
            let export = self.export();
            resource = export.resource_spans[0].resource.clone().unwrap();
            all.extend(spans(export));
        }
        (resource, all)
    }

    /// Every span that has come and was not taken yet.
    pub fn rest(&self) -> Vec<Span> {
        self.exports.try_iter().flat_map(spans).collect()
    }
}

async fn take(
    request: Request<Incoming>,
    sender: mpsc::Sender<ExportTraceServiceRequest>,
    answer: Response<Bytes>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    assert_eq!(request.uri().path(), "/v1/traces");
    assert_eq!(request.headers()["content-type"], "application/x-protobuf");
    let packed = request.headers().get("content-encoding").map(|encoding| encoding == "gzip");
    let mut body = request.into_body().collect().await.unwrap().to_bytes().to_vec();
    if let Some(gzip) = packed {
        assert!(gzip, "another encoding");
        let mut unpacked = Vec::new();
        GzDecoder::new(&body[..]).read_to_end(&mut unpacked).unwrap();
        body = unpacked;
    }
    // The test may have ended before the server.
    let _ = sender.send(ExportTraceServiceRequest::decode(&body[..]).unwrap());
    Ok(answer.map(Full::new))
}

fn spans(export: ExportTraceServiceRequest) -> Vec<Span> {
    let scopes = export.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).collect()
}

/// The one span of this kind.
pub fn of_kind(spans: &[Span], kind: SpanKind) -> &Span {
    let of_kind: Vec<_> = spans.iter().filter(|span| span.kind() == kind).collect();
    let [span] = of_kind[..] else { panic!("one {kind:?} in {spans:?}") };
    span
}

/// The text that an attribute holds.
pub fn attribute<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}
