//! Where gRPC-Web, Connect and JSON become gRPC, and the answers what their callers read.
//!
//! Every request passes here first. gRPC with protobuf passes untouched; everything else
//! is translated by the descriptors, so that the layers and the services below know one
//! protocol. A new message, field or method needs no code here.
//!
//! **Invariant:** a call in any protocol passes every layer, or is refused by a limit before
//! the first. The edge deliberately decides nothing about a call: it adds no limit, no
//! deadline and no rule.

mod answer;
mod answer_stream;
mod connect_error;
mod cors;
mod format;
mod frames;
mod json;
mod refusal;
mod request_body;
mod request_head;
mod schema;
mod text;

use std::{
    convert::Infallible,
    error::Error,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Method, Request, Response, Version, header::CONTENT_LENGTH};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use self::{
    answer::AnswerShape,
    cors::Cors,
    format::{Format, Spoken, Wire},
    refusal::{Refusal, discard},
    request_body::Translation,
    request_head::GetCall,
    schema::MethodSchema,
};
pub use self::{answer::EdgeAnswer, request_body::EdgeBody, schema::Schema};
use crate::{
    config::{Config, WebProtocols},
    rpc::{
        call::{Call, Inbound},
        protocol::Protocol,
    },
};

/// What every call needs here.
#[derive(Debug)]
struct Settings {
    schema: Arc<Schema>,
    max_message_bytes: usize,
    served: WebProtocols,
    /// `None` where no page of another origin may call.
    cors: Option<Cors>,
}

impl Settings {
    fn serves(&self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Grpc => true,
            Protocol::GrpcWeb => self.served.grpc_web,
            Protocol::Connect => self.served.connect,
        }
    }
}

/// Translates calls for a service that speaks gRPC.
#[derive(Clone, Debug)]
pub struct Edge<S> {
    inner: S,
    settings: Arc<Settings>,
}

impl<S> Edge<S> {
    /// Around the whole stack of layers.
    pub fn new(inner: S, schema: Schema, config: &Config) -> Self {
        let settings = Settings {
            schema: Arc::new(schema),
            max_message_bytes: config.max_request_bytes,
            served: config.web_protocols,
            cors: Cors::new(&config.cors_allowed_origins),
        };
        Self { inner, settings: Arc::new(settings) }
    }
}

impl<S, B, R> Service<Request<Inbound<B>>> for Edge<S>
where
    S: Service<Request<Inbound<EdgeBody<B>>>, Response = Response<R>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
{
    type Response = Response<EdgeAnswer<R>>;
    type Error = Infallible;
    type Future = EdgeFuture<S::Future, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Inbound<B>>) -> Self::Future {
        let spoken = format::of(request.headers());
        if spoken == Spoken::Grpc && request.version() >= Version::HTTP_2 {
            let inner = self.inner.call(
                request.map(|Inbound { call, body: inner }| Inbound { call, body: EdgeBody::Grpc { inner } }),
            );
            return EdgeFuture::Grpc { inner };
        }
        let served = serve(self.inner.clone(), Arc::clone(&self.settings), spoken, request);
        EdgeFuture::Translated { served: Box::pin(served) }
    }
}

type Served<R> = Pin<Box<dyn Future<Output = Response<EdgeAnswer<R>>> + Send>>;

pin_project! {
    /// The future of [`Edge`].
    #[project = EdgeProjection]
    pub enum EdgeFuture<F, R> {
        Grpc { #[pin] inner: F },
        Translated { served: Served<R> },
    }
}

impl<F, R> Future for EdgeFuture<F, R>
where
    F: Future<Output = Result<Response<R>, Infallible>>,
{
    type Output = Result<Response<EdgeAnswer<R>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            EdgeProjection::Grpc { inner } => inner
                .poll(cx)
                .map(|answer| answer.map(|answer| answer.map(|inner| EdgeAnswer::Grpc { inner }))),
            EdgeProjection::Translated { served } => served.as_mut().poll(cx).map(Ok),
        }
    }
}

/// Serves every request but gRPC with protobuf.
async fn serve<S, B, R>(
    mut inner: S,
    settings: Arc<Settings>,
    spoken: Spoken,
    request: Request<Inbound<B>>,
) -> Response<EdgeAnswer<R>>
where
    S: Service<Request<Inbound<EdgeBody<B>>>, Response = Response<R>, Error = Infallible>,
    B: Body<Data = Bytes>,
    R: Body<Data = Bytes>,
{
    // No browser sends gRPC, so a page of another origin is answered here only.
    let page = settings.cors.as_ref().map(|cors| (cors, Cors::origin(&request)));
    if let Some((cors, origin)) = &page
        && Cors::is_preflight(&request)
    {
        return cors.preflight(origin.as_ref());
    }
    let method = settings.schema.method(request.uri().path());
    let mut response = match plan(&settings, spoken, method, request) {
        Plan::Call(shape, request) => {
            let Ok(response) = inner.call(request).await;
            shape.answer(response).await
        }
        Plan::Refused(refusal, request) => {
            let Inbound { call, body } = request.into_body();
            discard(body).await;
            // As a call of no method, so that it is counted and logged.
            let Ok(_) = inner.call(nothing(call)).await;
            refusal.answer(method, |format| settings.serves(format.protocol()))
        }
    };
    if let Some((cors, origin)) = &page {
        cors.expose(origin.as_ref(), response.headers_mut());
    }
    response
}

/// A call that the layers answer with UNIMPLEMENTED.
fn nothing<B>(call: Call) -> Request<Inbound<EdgeBody<B>>> {
    let mut request = Request::new(Inbound { call, body: EdgeBody::Empty });
    *request.method_mut() = Method::POST;
    request
}

/// What becomes of a request.
enum Plan<'a, B> {
    /// A call as the layers read it, and how it is answered.
    Call(AnswerShape<'a>, Request<Inbound<EdgeBody<B>>>),
    Refused(Refusal, Request<Inbound<B>>),
}

fn plan<'a, B: Body<Data = Bytes>>(
    settings: &'a Settings,
    spoken: Spoken,
    method: Option<&'a MethodSchema>,
    mut request: Request<Inbound<B>>,
) -> Plan<'a, B> {
    let serves_get = settings.serves(Protocol::Connect);
    match (request.method(), spoken, method) {
        (&Method::POST, Spoken::Other(Format { wire: Wire::Grpc, .. }), _)
            if request.version() < Version::HTTP_2 =>
        {
            Plan::Refused(Refusal::HttpVersion, request)
        }
        (&Method::POST, Spoken::Other(format), _) if settings.serves(format.protocol()) => {
            // A path with a query is another path, as in gRPC.
            let method = method.filter(|_| request.uri().query().is_none());
            if method.is_some_and(|method| !format.fits(method.streams)) {
                return Plan::Refused(Refusal::ContentType, request);
            }
            post(settings, format, method, request)
        }
        (&Method::POST, Spoken::Grpc, _) => Plan::Refused(Refusal::HttpVersion, request),
        (&Method::POST, ..) => Plan::Refused(Refusal::ContentType, request),
        (&Method::GET, _, Some(read)) if read.takes_get && serves_get => {
            match request_head::translate_get(&mut request, read, settings.max_message_bytes) {
                None => Plan::Refused(Refusal::ContentType, request),
                Some(GetCall { format, translation, takes_gzip }) => {
                    let schema = &settings.schema;
                    let shape = AnswerShape { schema, format, method, takes_gzip, is_get: true };
                    Plan::Call(shape, translated(request, translation, Protocol::Connect))
                }
            }
        }
        _ => Plan::Refused(Refusal::of_http_method(method, serves_get), request),
    }
}

fn post<'a, B: Body<Data = Bytes>>(
    settings: &'a Settings,
    format: &'static Format,
    method: Option<&'a MethodSchema>,
    mut request: Request<Inbound<B>>,
) -> Plan<'a, B> {
    // Both protocols hold their clients to it.
    let declared = request.headers().get(CONTENT_LENGTH);
    let body_bytes = declared.and_then(|length| length.to_str().ok()?.parse().ok());
    let (translation, takes_gzip) = match method {
        Some(method) => {
            let limit = settings.max_message_bytes;
            request_head::translate(request.headers_mut(), format, method, body_bytes, limit)
        }
        // The layers answer without reading it.
        None => (Translation::Passing, false),
    };
    let schema = &settings.schema;
    let shape = AnswerShape { schema, format, method, takes_gzip, is_get: false };
    Plan::Call(shape, translated(request, translation, format.protocol()))
}

fn translated<B>(
    request: Request<Inbound<B>>,
    translation: Translation,
    protocol: Protocol,
) -> Request<Inbound<EdgeBody<B>>> {
    request.map(|Inbound { mut call, body: inner }| {
        call.protocol = protocol;
        let body = match translation {
            Translation::Passing => EdgeBody::Grpc { inner },
            translation => EdgeBody::translated(inner, translation, call.connection.clone()),
        };
        Inbound { call, body }
    })
}
