//! Turns calls away when more are in flight than the server can serve well.
//!
//! One limit for unary calls and one for streams, each for the whole process and
//! not for a connection: overload does not ask where it came from. A call is in
//! flight until its answer has been sent to the end.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use metrics::{Counter, Gauge, counter, gauge};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{
    config::Config,
    service::{
        methods::{Kind, Matched, Method},
        status,
    },
};

/// The two limits, shared by every connection and thread.
#[derive(Debug)]
pub struct Limits {
    unary: Arc<Gate>,
    streams: Arc<Gate>,
}

impl Limits {
    pub fn new(config: &Config) -> Self {
        Self {
            unary: Arc::new(Gate::new("unary", config.max_unary_calls)),
            streams: Arc::new(Gate::new("streaming", config.max_streaming_calls)),
        }
    }

    /// What a call passes. Probes and tools must get through when callers do not;
    /// and a path that nothing is served under costs nothing worth a limit.
    fn gate(&self, method: Option<&Method>) -> Option<&Arc<Gate>> {
        let method = method.filter(|method| !method.api.is_infrastructure())?;
        Some(if method.kind == Kind::Unary { &self.unary } else { &self.streams })
    }
}

#[derive(Debug)]
struct Gate {
    limit: usize,
    in_flight: AtomicUsize,
    in_flight_gauge: Gauge,
    shed: Counter,
}

impl Gate {
    #[allow(clippy::cast_precision_loss, reason = "a limit of 2^52 calls is no limit")]
    fn new(kind: &'static str, limit: usize) -> Self {
        gauge!("grpc_server_admission_limit", "kind" => kind).set(limit as f64);
        let shed = counter!("grpc_server_admission_shed_total", "kind" => kind);
        shed.increment(0);
        Self {
            limit,
            in_flight: AtomicUsize::new(0),
            in_flight_gauge: gauge!("grpc_server_admission_in_flight", "kind" => kind),
            shed,
        }
    }

    fn enter(self: &Arc<Self>) -> Option<Permit> {
        // Taken first and given back when it was one too many: two callers can never both have the
        // last place, and a call that is turned away needs no loop.
        if self.in_flight.fetch_add(1, Ordering::Relaxed) < self.limit {
            self.in_flight_gauge.increment(1.0);
            return Some(Permit(self.clone()));
        }
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.shed.increment(1);
        None
    }
}

/// A place among the calls in flight.
#[derive(Debug)]
struct Permit(Arc<Gate>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.0.in_flight_gauge.decrement(1.0);
    }
}

/// Answers UNAVAILABLE in place of the inner service when a limit is reached.
#[derive(Clone, Debug)]
pub struct Admission<S> {
    inner: S,
    limits: Arc<Limits>,
}

impl<S> Admission<S> {
    pub fn new(inner: S, limits: Arc<Limits>) -> Self {
        Self { inner, limits }
    }
}

impl<S, B, R> Service<Request<B>> for Admission<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Default,
{
    type Response = Response<AdmittedBody<R>>;
    type Error = S::Error;
    type Future = AdmissionFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let method = request.extensions().get::<Matched>().and_then(|matched| matched.0);
        let permit = match self.limits.gate(method) {
            None => None,
            Some(gate) => match gate.enter() {
                None => return AdmissionFuture { inner: None, permit: None },
                permit => permit,
            },
        };
        AdmissionFuture { inner: Some(self.inner.call(request)), permit }
    }
}

pin_project! {
    /// The future of [`Admission`]: nothing within where the call is turned away.
    pub struct AdmissionFuture<F> {
        #[pin]
        inner: Option<F>,
        permit: Option<Permit>,
    }
}

impl<F, R, E> Future for AdmissionFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Default,
{
    type Output = Result<Response<AdmittedBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(inner) = this.inner.as_pin_mut() else {
            return Poll::Ready(Ok(status::overloaded().into_http()));
        };
        let response = ready!(inner.poll(cx))?;
        let permit = this.permit.take();
        Poll::Ready(Ok(response.map(|inner| AdmittedBody { inner, permit })))
    }
}

pin_project! {
    /// A body that holds its call's place until it is dropped.
    #[derive(Default)]
    pub struct AdmittedBody<B> {
        #[pin]
        inner: B,
        permit: Option<Permit>,
    }
}

impl<B: Body<Data = Bytes>> Body for AdmittedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.project().inner.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
