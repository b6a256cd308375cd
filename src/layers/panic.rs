//! A panic costs the one call that met it: it is answered with INTERNAL.
//!
//! What a panic says may hold what a caller sent, so it is neither answered nor
//! logged here; the panic hook of `telemetry` logs where it happened.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use metrics::Counter;
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::rpc::{call::Inbound, methods::Method, status};

/// Answers INTERNAL where the inner service, its future or its body panics.
#[derive(Clone, Debug)]
pub struct CatchPanic<S> {
    inner: S,
}

/// Looked up when there is a panic, so that no call without one carries it.
fn panics() -> Counter {
    metrics::counter!("grpc_server_panics_total")
}

impl<S> CatchPanic<S> {
    pub fn new(inner: S) -> Self {
        panics().increment(0);
        Self { inner }
    }
}

impl<S, B, R> Service<Request<Inbound<B>>> for CatchPanic<S>
where
    S: Service<Request<Inbound<B>>, Response = Response<R>>,
    R: Default,
{
    type Response = Response<CatchPanicBody<R>>;
    type Error = S::Error;
    type Future = CatchPanicFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Inbound<B>>) -> Self::Future {
        let report = Report { method: request.body().call.method };
        let inner = report.catch(|| self.inner.call(request));
        CatchPanicFuture { inner, report: Some(report) }
    }
}

/// Counts and logs a panic.
#[derive(Debug)]
struct Report {
    method: Option<&'static Method>,
}

impl Report {
    /// What `f` returns; nothing if it panics.
    fn catch<T>(&self, f: impl FnOnce() -> T) -> Option<T> {
        // Nothing that a panic may have left half done is used again: the future or the body is
        // dropped, and what calls share is behind atomics or locks that know of poisoning.
        let caught = catch_unwind(AssertUnwindSafe(f)).ok();
        if caught.is_none() {
            panics().increment(1);
            let method = self.method.map_or("_OTHER", Method::full_name);
            tracing::error!(target: "user_service::call", method, "a call panicked and was answered with INTERNAL");
        }
        caught
    }
}

pin_project! {
    /// The future of [`CatchPanic`].
    pub struct CatchPanicFuture<F> {
        #[pin]
        inner: Option<F>,
        report: Option<Report>,
    }
}

impl<F, R, E> Future for CatchPanicFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Default,
{
    type Output = Result<Response<CatchPanicBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let polled = match (this.inner.as_mut().as_pin_mut(), this.report.as_ref()) {
            (Some(inner), Some(report)) => report.catch(|| inner.poll(cx)),
            _ => None,
        };
        let Some(polled) = polled else {
            // The future's own drop may meet what made it panic.
            let _ = catch_unwind(AssertUnwindSafe(|| this.inner.set(None)));
            return Poll::Ready(Ok(status::internal().into_http()));
        };
        let response = ready!(polled)?;
        let report = this.report.take();
        Poll::Ready(Ok(response.map(|body| CatchPanicBody { inner: Some(body), report })))
    }
}

pin_project! {
    /// The body of an answer given through [`CatchPanic`].
    pub struct CatchPanicBody<B> {
        #[pin]
        inner: Option<B>,
        report: Option<Report>,
    }
}

impl<B> Default for CatchPanicBody<B> {
    fn default() -> Self {
        Self { inner: None, report: None }
    }
}

impl<B: Body<Data = Bytes>> Body for CatchPanicBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let (Some(inner), Some(report)) = (this.inner.as_mut().as_pin_mut(), this.report.as_ref()) else {
            return Poll::Ready(None);
        };
        if let Some(polled) = report.catch(|| inner.poll_frame(cx)) {
            return polled;
        }
        let _ = catch_unwind(AssertUnwindSafe(|| this.inner.set(None)));
        Poll::Ready(Some(Ok(Frame::trailers(status::trailers(&status::internal())))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::ready};

    use futures_util::FutureExt;
    use tonic::Code;
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::{
        layers::testing::{Script, Step, UNARY, end, head, request, response},
        telemetry::testing::recorded,
    };

    fn code_of(
        f: impl FnOnce(Request<Inbound<Script>>) -> Response<Script> + Clone + 'static,
    ) -> Option<Code> {
        let service = CatchPanic::new(service_fn(move |request| {
            let f = f.clone();
            async move { Ok::<_, Infallible>(f(request)) }
        }));
        let response = service.oneshot(request(UNARY)).now_or_never().unwrap().unwrap();
        head(&response).map(|status| status.code())
    }

    #[test]
    fn a_panic_is_answered_with_internal_and_counted() {
        let lines = recorded(|| {
            assert_eq!(code_of(|_| panic!("on the way to an answer")), Some(Code::Internal));
        });
        assert_eq!(lines, ["grpc_server_panics_total 1"]);
        assert_eq!(code_of(|_| response(&[])), None, "an answer is left as it is");
    }

    #[test]
    fn a_panic_before_there_is_a_future_is_the_same() {
        let service = CatchPanic::new(service_fn(|_: Request<Inbound<Script>>| {
            assert!(UNARY.is_empty(), "on the way to a future");
            ready(Ok::<_, Infallible>(response(&[])))
        }));
        let response = service.oneshot(request(UNARY)).now_or_never().unwrap().unwrap();
        assert_eq!(head(&response).unwrap().code(), Code::Internal);
    }

    #[test]
    fn a_panic_in_the_midst_of_an_answer_ends_it_with_internal() {
        let service = CatchPanic::new(service_fn(|_: Request<Inbound<Script>>| {
            ready(Ok::<_, Infallible>(response(&[Step::Data(b"some"), Step::Panic])))
        }));
        let response = service.oneshot(request(UNARY)).now_or_never().unwrap().unwrap();
        assert_eq!(end(Box::pin(response.into_body())).now_or_never(), Some(Code::Internal));
    }
}
