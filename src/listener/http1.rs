//! How hyper is to speak HTTP/1.1, and how a client learns that its connection ends.
//!
//! HTTP/1.1 has no GOAWAY. An answer with `connection: close` is the one way to end a
//! connection on which no request can be lost. So a connection that is to go away and has
//! no call stays open for a request that may be on its way, within the bounds of
//! [`super::lifetime`].

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{HeaderValue, Request, Response, header::CONNECTION};
use hyper::{body::Incoming, server::conn::http1, service::Service};
use pin_project_lite::pin_project;

use super::in_flight::CountedBody;
use crate::{config::Config, rpc::goaway::ConnectionHandle};

/// The least that hyper takes for its buffers.
const LEAST_BUFFER_BYTES: usize = 8 * 1_024;

/// The most bytes of a request's head.
pub fn max_head_bytes(config: &Config) -> usize {
    usize::try_from(config.max_header_list_bytes).unwrap_or(usize::MAX)
}

/// How hyper is to speak HTTP/1.1 behind [`super::policing`], on both ports.
pub fn http1(max_head_bytes: usize) -> http1::Builder {
    let mut http1 = http1::Builder::new();
    http1
        // hyper's deadline would end an idle connection too. `policing` has one for a head
        // that has begun, and `lifetime` one for the first head and one for idle time.
        .header_read_timeout(None)
        // Kept by an idle connection, so it is as small as the largest head allows.
        .max_buf_size(max_head_bytes.max(LEAST_BUFFER_BYTES));
    http1
}

/// Has the answers on a connection that is to end say so.
#[derive(Clone, Debug)]
pub struct SayClose<S> {
    inner: S,
    connection: ConnectionHandle,
}

impl<S> SayClose<S> {
    pub fn new(inner: S, connection: ConnectionHandle) -> Self {
        Self { inner, connection }
    }
}

impl<S, B> Service<Request<Incoming>> for SayClose<S>
where
    S: Service<Request<Incoming>, Response = Response<CountedBody<B>>, Error = Infallible>,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = SayCloseFuture<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        SayCloseFuture { inner: self.inner.call(request), connection: self.connection.clone() }
    }
}

pin_project! {
    /// The response's head to come.
    pub struct SayCloseFuture<F> {
        #[pin]
        inner: F,
        connection: ConnectionHandle,
    }
}

impl<F, B> Future for SayCloseFuture<F>
where
    F: Future<Output = Result<Response<CountedBody<B>>, Infallible>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(mut response) = ready!(this.inner.poll(cx));
        // hyper ends the connection after an answer to a request that its client keeps back.
        if this.connection.is_going_away() || response.body().is_request_unasked() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(response))
    }
}
