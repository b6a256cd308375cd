//! A counter and a histogram for each method and code, as a tower layer.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use http::{Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};

#[derive(Clone)]
pub struct MeteredLayer;

impl<S> Layer<S> for MeteredLayer {
    type Service = Metered<S>;

    fn layer(&self, inner: S) -> Metered<S> {
        Metered { inner }
    }
}

#[derive(Clone)]
pub struct Metered<S> {
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Metered<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let clone = self.inner.clone();
        // The one that was polled ready is the one that is called.
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let (service, method) = crate::split(request.uri().path());
        let (service, method) = (service.to_owned(), method.to_owned());
        let begun = Instant::now();
        Box::pin(async move {
            let result = inner.call(request).await;
            let labels = [
                ("grpc_service", service),
                ("grpc_method", method),
                ("grpc_code", format!("{:?}", code(&result))),
            ];
            metrics::counter!("grpc_server_handled_total", &labels).increment(1);
            metrics::histogram!("grpc_server_handling_seconds", &labels)
                .record(begun.elapsed().as_secs_f64());
            result
        })
    }
}

/// A unary error is in the head of tonic's response; without one there, it is OK.
fn code<R, E>(result: &Result<Response<R>, E>) -> Code {
    match result {
        Ok(response) => Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code()),
        Err(_) => Code::Unknown,
    }
}
