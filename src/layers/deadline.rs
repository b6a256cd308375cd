//! Ends a call at its deadline, before its answer or within it, and
//! tells the service how much time there is.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_service::Service;

use crate::{
    config::Config,
    domain::Deadline,
    rpc::{call::Inbound, headers::GRPC_TIMEOUT, methods::MethodKind, status},
};

/// Answers `DEADLINE_EXCEEDED` in place of an answer that is late, and drops the
/// work on it: what must be finished runs detached.
#[derive(Clone, Debug)]
pub struct Deadlines<S> {
    inner: S,
    default: Duration,
    max: Duration,
}

impl<S> Deadlines<S> {
    pub fn new(inner: S, config: &Config) -> Self {
        Self { inner, default: config.default_timeout, max: config.max_timeout }
    }

    /// How long a call may take.
    ///
    /// The server's own default and maximum are for unary calls only: a stream
    /// lives for as long as its client wants it to.
    fn timeout<B>(&self, request: &Request<Inbound<B>>) -> Result<Option<Duration>, Malformed> {
        let asked = match request.headers().get(&GRPC_TIMEOUT) {
            None => None,
            Some(value) => Some(parse(value)?),
        };
        let unary = request.body().call.method.is_some_and(|method| method.kind == MethodKind::Unary);
        Ok(if unary { Some(asked.unwrap_or(self.default).min(self.max)) } else { asked })
    }
}

impl<S, B, R> Service<Request<Inbound<B>>> for Deadlines<S>
where
    S: Service<Request<Inbound<B>>, Response = Response<R>>,
    R: Default,
{
    type Response = Response<DeadlineBody<R>>;
    type Error = S::Error;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Inbound<B>>) -> Self::Future {
        let Ok(timeout) = self.timeout(&request) else {
            return DeadlineFuture {
                inner: None,
                deadline: LazyTimer::NONE,
                refusal: DeadlineRefusal::Malformed,
            };
        };
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return DeadlineFuture { inner: None, deadline: LazyTimer::NONE, refusal: DeadlineRefusal::Late };
        }
        let call = &mut request.body_mut().call;
        let at = timeout.map(|timeout| call.started + timeout);
        call.deadline = at.map_or(Deadline::NONE, |at| Deadline::at(at.into_std()));
        let inner = Some(self.inner.call(request));
        DeadlineFuture { inner, deadline: LazyTimer { at, timer: None }, refusal: DeadlineRefusal::Late }
    }
}

/// Not as the gRPC specification writes a timeout.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// Reads one to eight digits and a unit, as the gRPC specification has it.
///
/// grpc-go answers INTERNAL to anything else; here it is `INVALID_ARGUMENT`, as the
/// mistake is the caller's and must not count against the service.
pub fn parse(value: &HeaderValue) -> Result<Duration, Malformed> {
    let (unit, digits) = value.as_bytes().split_last().ok_or(Malformed)?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Malformed);
    }
    let number = digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Ok(Duration::from_secs(number * 3_600)),
        b'M' => Ok(Duration::from_secs(number * 60)),
        b'S' => Ok(Duration::from_secs(number)),
        b'm' => Ok(Duration::from_millis(number)),
        b'u' => Ok(Duration::from_micros(number)),
        b'n' => Ok(Duration::from_nanos(number)),
        _ => Err(Malformed),
    }
}

/// Why a call is answered here.
#[derive(Clone, Copy, Debug)]
enum DeadlineRefusal {
    Malformed,
    Late,
}

/// A timer that is armed only when it is polled.
struct LazyTimer {
    at: Option<Instant>,
    // Set only when there is something to wait for: most calls are answered immediately, and a timer
    // costs more than the rest of this layer. In a box, so that calls without one do not move it.
    timer: Option<Pin<Box<Sleep>>>,
}

impl LazyTimer {
    const NONE: Self = Self { at: None, timer: None };

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        self.timer.get_or_insert_with(|| Box::pin(sleep_until(at))).as_mut().poll(cx)
    }
}

pin_project! {
    /// The future of [`Deadlines`]: nothing within where the call is not passed on.
    pub struct DeadlineFuture<F> {
        #[pin]
        inner: Option<F>,
        deadline: LazyTimer,
        refusal: DeadlineRefusal,
    }
}

impl<F, R, E> Future for DeadlineFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Default,
{
    type Output = Result<Response<DeadlineBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(inner) = this.inner.as_mut().as_pin_mut() {
            if let Poll::Ready(response) = inner.poll(cx) {
                let deadline = LazyTimer { at: this.deadline.at, timer: None };
                return Poll::Ready(
                    response
                        .map(|response| response.map(|inner| DeadlineBody { inner: Some(inner), deadline })),
                );
            }
            if this.deadline.poll(cx).is_pending() {
                return Poll::Pending;
            }
            this.inner.set(None);
        }
        let status = match this.refusal {
            DeadlineRefusal::Malformed => status::bad_timeout(),
            DeadlineRefusal::Late => status::deadline_exceeded(),
        };
        Poll::Ready(Ok(status.into_http()))
    }
}

pin_project! {
    /// A body that ends with DEADLINE_EXCEEDED when its time is up.
    pub struct DeadlineBody<B> {
        #[pin]
        inner: Option<B>,
        deadline: LazyTimer,
    }
}

impl<B> Default for DeadlineBody<B> {
    fn default() -> Self {
        Self { inner: None, deadline: LazyTimer::NONE }
    }
}

impl<B: Body<Data = Bytes>> Body for DeadlineBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        // The alarm goes first once it is set, as a stream may always have something to send.
        if this.deadline.timer.is_none() || this.deadline.poll(cx).is_pending() {
            if let Poll::Ready(frame) = inner.poll_frame(cx) {
                return Poll::Ready(frame);
            }
            if this.deadline.poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        this.inner.set(None);
        Poll::Ready(Some(Ok(Frame::trailers(status::trailers(&status::deadline_exceeded())))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        // An exact size would promise bytes that may never be sent.
        match &self.inner {
            Some(inner) if self.deadline.at.is_none() || inner.is_end_stream() => inner.size_hint(),
            Some(_) => SizeHint::default(),
            None => SizeHint::with_exact(0),
        }
    }
}

#[cfg(test)]
mod tests;
