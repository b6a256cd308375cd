//! Observes each call from its first byte to its last. It is counted, logged and
//! traced here, once, when its status is known.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tonic::Code;
use tower_service::Service;
use tracing::span::Entered;

use super::{call_log::CallLog, in_flight::InFlight, metrics::CallMetrics, trace::Trace};
use crate::{
    rpc::{
        audit::AuditRecord,
        call::{Call, Inbound},
        codes,
        framing::MessageScanner,
        goaway::ConnectionHandle,
        methods::Method,
        protocol::Protocol,
    },
    telemetry::TraceConfig,
    util::registry::RegistryKey,
};

/// Where calls are recorded, shared by every connection and thread.
#[derive(Debug)]
pub struct Recorders {
    pub metrics: Arc<CallMetrics>,
    /// `None`: calls are not logged.
    pub log: Option<CallLog>,
    pub traces: TraceConfig,
    pub in_flight: InFlight,
    /// Whether writes and denials have a line in the audit log.
    pub audit: bool,
}

/// Records every call to the inner service.
#[derive(Clone, Debug)]
pub struct Observe<S> {
    inner: S,
    recorders: Arc<Recorders>,
}

impl<S> Observe<S> {
    pub fn new(inner: S, recorders: Arc<Recorders>) -> Self {
        Self { inner, recorders }
    }
}

impl<S, B, R> Service<Request<Inbound<B>>> for Observe<S>
where
    S: Service<Request<Inbound<B>>, Response = Response<R>>,
{
    type Response = Response<ObservedBody<R>>;
    type Error = S::Error;
    type Future = ObserveFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Inbound<B>>) -> Self::Future {
        let call = CallRecord::start(&request.body().call, request.headers(), self.recorders.clone());
        request.body_mut().call.audit.clone_from(&call.audit);
        let entered = call.enter();
        let inner = self.inner.call(request);
        drop(entered);
        ObserveFuture { inner, call: Some(call) }
    }
}

/// One call, which has not ended. Dropped before its end it was cancelled.
#[derive(Debug)]
pub struct CallRecord {
    method: Option<&'static Method>,
    protocol: Protocol,
    started: Instant,
    key: RegistryKey,
    /// In a box, as most calls have none.
    trace: Option<Box<Trace>>,
    audit: Option<Arc<AuditRecord>>,
    recorders: Arc<Recorders>,
    connection: ConnectionHandle,
    ended: Option<Code>,
}

impl CallRecord {
    pub fn start(call: &Call, headers: &HeaderMap, recorders: Arc<Recorders>) -> Self {
        let &Call { method, protocol, started, ref connection, .. } = call;
        recorders.metrics.called(protocol);
        recorders.metrics.of(method).started();
        let name = method.map_or("_OTHER", Method::full_name);
        let trace = Trace::start(headers, name, protocol, recorders.traces).map(Box::new);
        let key = recorders.in_flight.enter(method, connection.id, started.into_std());
        let trace_id = || trace.as_ref().map(|trace| trace.id);
        let audit = recorders.audit.then(|| Arc::new(AuditRecord::new(method, trace_id())));
        Self {
            method,
            protocol,
            started,
            key,
            trace,
            audit,
            recorders,
            connection: connection.clone(),
            ended: None,
        }
    }

    /// Makes the call's span the one that spans of the store are children of.
    fn enter(&self) -> Option<Entered<'_>> {
        self.trace.as_ref()?.span.as_ref().map(tracing::Span::enter)
    }

    /// The answer is complete. On a connection that is about to go it can still be lost,
    /// and then the call was cancelled.
    pub fn end(self, code: Code) {
        if self.connection.is_going_away() {
            let connection = self.connection.clone();
            connection.on_delivery(Box::new(move |delivered| self.close(delivered.then_some(code))));
        } else {
            self.close(Some(code));
        }
    }

    /// Dropped with this code, it is recorded.
    fn close(mut self, code: Option<Code>) {
        self.ended = code;
    }
}

impl Drop for CallRecord {
    fn drop(&mut self) {
        let code = self.ended.unwrap_or(Code::Cancelled);
        let now = Instant::now();
        let took = now - self.started;
        self.recorders.in_flight.leave(&self.key);
        self.recorders.metrics.of(self.method).finished(self.protocol, code, took);
        if let Some(trace) = &mut self.trace {
            trace.finish(code);
        }
        if let Some(audit) = &self.audit {
            audit.end(code);
        }
        if let Some(log) = &self.recorders.log {
            log.call(self.method, self.protocol, code, took, now, self.trace.as_deref());
        }
    }
}

pin_project! {
    /// The future of [`Observe`].
    pub struct ObserveFuture<F> {
        // Before the call, so that the inner value is dropped before the call ends.
        #[pin]
        inner: F,
        call: Option<CallRecord>,
    }
}

impl<F, R, E> Future for ObserveFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<ObservedBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let entered = this.call.as_ref().and_then(CallRecord::enter);
        let response = ready!(this.inner.poll(cx));
        drop(entered);
        let mut call = this.call.take();
        let response = response.inspect_err(|_| end(&mut call, Code::Unknown))?;
        if let Some(code) = codes::in_headers(response.headers()) {
            end(&mut call, code);
        } else if response.status() != StatusCode::OK {
            end(&mut call, codes::of_http(response.status()));
        }
        Poll::Ready(Ok(response.map(|inner| ObservedBody {
            inner,
            call,
            scanner: MessageScanner::default(),
        })))
    }
}

/// Ends the call unless it has ended.
fn end(call: &mut Option<CallRecord>, code: Code) {
    if let Some(call) = call.take() {
        call.end(code);
    }
}

pin_project! {
    /// The body of an answer, whose trailers end the call.
    pub struct ObservedBody<B> {
        #[pin]
        inner: B,
        call: Option<CallRecord>,
        scanner: MessageScanner,
    }
}

impl<B: Body<Data = Bytes>> Body for ObservedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let entered = this.call.as_ref().and_then(CallRecord::enter);
        let frame = ready!(this.inner.poll_frame(cx));
        drop(entered);
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(bytes), Some(call)) = (frame.data_ref(), &this.call) {
                    let metrics = call.recorders.metrics.of(call.method);
                    // Without a limit there is nothing to refuse.
                    let _ = this.scanner.read(bytes, usize::MAX, |len| metrics.sent(len));
                } else if let Some(trailers) = frame.trailers_ref() {
                    end(this.call, codes::in_headers(trailers).unwrap_or(Code::Unknown));
                }
            }
            // A client that gets an answer without a status makes the same of it.
            Some(Err(_)) | None => end(this.call, Code::Unknown),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests;
