//! What the admin port answers.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{ALLOW, CONTENT_TYPE},
};
use http_body::{Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tokio::time::timeout;
use tonic::body::Body;
use tower::ServiceExt;

use super::connection::InUse;
use crate::{
    proto::health::health_server::HealthServer,
    service::{
        Health,
        health::{LIVENESS, READINESS},
        status,
    },
    telemetry::Metrics,
};

/// How long an answer may take to begin; what is slow is a client that sends.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

const HEALTH_PREFIX: &str = "/grpc.health.v1.Health/";

/// Everything that is served.
#[derive(Clone)]
pub struct Routes {
    metrics: Metrics,
    health: Health,
    health_server: HealthServer<Health>,
}

impl Routes {
    pub fn new(metrics: Metrics, health: Health) -> Self {
        Self { metrics, health_server: health.server(), health }
    }

    /// Answers one request; `in_use` lasts as long as the answer does.
    pub fn answer(
        &self,
        request: Request<Incoming>,
        in_use: InUse,
    ) -> impl Future<Output = Result<Response<AnswerBody>, Infallible>> + use<> {
        let routes = self.clone();
        async move {
            if request.uri().path().starts_with(HEALTH_PREFIX) && request.version() == Version::HTTP_2 {
                let response = routes.grpc_health(request).await;
                return Ok(response.map(|inner| AnswerBody { inner, in_use: Some(in_use) }));
            }
            // Such a body is there at once: a client that does not read it is not in use of anything.
            Ok(routes
                .plain(&request)
                .map(|text| AnswerBody { inner: Body::new(Full::new(Bytes::from(text))), in_use: None }))
        }
    }

    /// The same health as on the gRPC port; its own limit bounds the message.
    async fn grpc_health(&self, request: Request<Incoming>) -> Response<Body> {
        match timeout(REQUEST_TIMEOUT, self.health_server.clone().oneshot(request)).await {
            Ok(Ok(response)) => response,
            Err(_) => status::deadline_exceeded().into_http(),
        }
    }

    fn plain(&self, request: &Request<Incoming>) -> Response<String> {
        let path = request.uri().path();
        if !matches!(path, "/metrics" | "/livez" | "/readyz") {
            return text(StatusCode::NOT_FOUND, "not found: /metrics, /livez and /readyz are here\n".into());
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "ask with GET\n".into());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match path {
            "/livez" => self.named(LIVENESS),
            "/readyz" => self.named(READINESS),
            _ => {
                self.health.record();
                let mut response = text(StatusCode::OK, self.metrics.render());
                let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            }
        }
    }

    fn named(&self, name: &str) -> Response<String> {
        if self.health.is_serving(name) {
            text(StatusCode::OK, "ok\n".into())
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, "unavailable\n".into())
        }
    }
}

fn text(status: StatusCode, text: String) -> Response<String> {
    let mut response = Response::new(text);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

pin_project! {
    /// A body that keeps its connection in use.
    pub struct AnswerBody {
        #[pin]
        inner: Body,
        in_use: Option<InUse>,
    }
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        self.project().inner.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
