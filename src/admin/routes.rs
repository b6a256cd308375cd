//! What the admin port answers.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{ALLOW, CONTENT_TYPE},
};
use http_body_util::{BodyExt, Full, Limited};
use tokio::time::timeout;
use tonic::body::Body;
use tower::ServiceExt;

use super::{
    connection::RequestGuard,
    debug::{self, DebugPages},
};
#[cfg(test)]
use crate::{config::Config, layers::InFlight, listener::ConnectionRegistry, telemetry::LogFilter};
use crate::{
    listener::IncomingBody,
    proto::health::health_server::HealthServer,
    rpc::status,
    service::{
        Health,
        health::{LIVENESS, READINESS},
    },
    telemetry::Metrics,
    util::guarded_body::GuardedBody,
};

/// How long an answer may take to begin; only a client that sends slowly takes long.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

const LOG_FILTER: &str = "/log_filter";

const NOT_FOUND: &str =
    "not found: /metrics, /livez, /readyz are here, and /calls, /connections, /log_filter\n";

const HEALTH_PREFIX: &str = "/grpc.health.v1.Health/";

/// Everything that is served.
#[derive(Clone)]
pub struct Routes {
    metrics: Metrics,
    health: Health,
    health_server: HealthServer<Health>,
    debug: DebugPages,
    /// Whether the peer is on this machine.
    is_loopback: bool,
}

impl Routes {
    pub fn new(metrics: Metrics, health: Health, debug: DebugPages) -> Self {
        Self { metrics, health_server: health.server(), health, debug, is_loopback: false }
    }

    /// The same for the connection of this peer.
    pub fn of(&self, peer: SocketAddr) -> Self {
        Self { is_loopback: debug::is_loopback(peer), ..self.clone() }
    }

    /// Of no process: for tests of what serves them.
    #[cfg(test)]
    pub fn detached() -> Self {
        let (calls, connections) = (InFlight::default(), ConnectionRegistry::default());
        let debug = DebugPages { calls, connections, log_filter: LogFilter::detached() };
        Self::new(Metrics::detached(), Health::new(&Config::default()), debug)
    }

    /// Answers one request; `in_use` lasts as long as the answer does.
    pub fn answer(
        &self,
        request: Request<IncomingBody>,
        in_use: RequestGuard,
    ) -> impl Future<Output = Result<Response<GuardedBody<Body, RequestGuard>>, Infallible>> + use<> {
        let routes = self.clone();
        async move {
            if request.uri().path().starts_with(HEALTH_PREFIX) && request.version() == Version::HTTP_2 {
                let response = routes.grpc_health(request).await;
                return Ok(response.map(|inner| GuardedBody::new(inner, Some(in_use))));
            }
            let is_change = request.method() == Method::PUT && request.uri().path() == LOG_FILTER;
            let response = if is_change && routes.is_loopback {
                routes.change_filter(request).await
            } else {
                routes.plain(&request)
            };
            // Such a body is complete already, so a client that does not read it holds no resource.
            Ok(response.map(|text| GuardedBody::new(Body::new(Full::new(Bytes::from(text))), None)))
        }
    }

    /// The same health as on the gRPC port; its own limit bounds the message.
    async fn grpc_health(&self, request: Request<IncomingBody>) -> Response<Body> {
        match timeout(REQUEST_TIMEOUT, self.health_server.clone().oneshot(request)).await {
            Ok(Ok(response)) => response,
            Err(_) => status::deadline_exceeded().into_http(),
        }
    }

    async fn change_filter(&self, request: Request<IncomingBody>) -> Response<String> {
        let body = Limited::new(request.into_body(), debug::MAX_FILTER_BYTES).collect();
        match timeout(REQUEST_TIMEOUT, body).await {
            Ok(Ok(body)) => {
                let (status, said) = self.debug.filter(&body.to_bytes());
                text(status, said)
            }
            Ok(Err(_)) => text(StatusCode::PAYLOAD_TOO_LARGE, "the filter is too long\n".into()),
            Err(_) => text(StatusCode::REQUEST_TIMEOUT, "the filter did not come\n".into()),
        }
    }

    fn plain<B>(&self, request: &Request<B>) -> Response<String> {
        let path = request.uri().path();
        let allow = match path {
            "/metrics" | "/livez" | "/readyz" => "GET, HEAD",
            "/calls" | "/connections" | LOG_FILTER if !self.is_loopback => {
                let why = "only for this machine itself: kubectl port-forward leads there\n";
                return text(StatusCode::FORBIDDEN, why.into());
            }
            "/calls" | "/connections" => "GET, HEAD",
            LOG_FILTER => "GET, HEAD, PUT",
            _ => return text(StatusCode::NOT_FOUND, NOT_FOUND.into()),
        };
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("ask with {allow}\n"));
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
            return response;
        }
        if let Some(page) = self.debug.page(path) {
            return text(StatusCode::OK, page);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_the_machine_itself_is_for_nobody_else() {
        let routes = Routes::detached();
        let ask = |routes: &Routes, method: Method, path: &str| {
            let request = Request::builder().method(method).uri(path).body(()).unwrap();
            routes.plain(&request).status()
        };
        let here = routes.of("[::ffff:127.0.0.1]:1".parse().unwrap());
        let there = routes.of("10.0.0.1:1".parse().unwrap());
        for path in ["/calls", "/connections", "/log_filter"] {
            assert_eq!(ask(&here, Method::GET, path), StatusCode::OK, "{path}");
            assert_eq!(ask(&here, Method::DELETE, path), StatusCode::METHOD_NOT_ALLOWED, "{path}");
            for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE] {
                assert_eq!(ask(&there, method, path), StatusCode::FORBIDDEN, "{path}");
            }
        }
        assert_eq!(ask(&there, Method::GET, "/livez"), StatusCode::OK);
        assert_eq!(ask(&here, Method::GET, "/call"), StatusCode::NOT_FOUND);
    }
}
