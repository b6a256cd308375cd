//! What the two protocols of hyper's connections differ in, for the loop that serves them.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http_body::Body;
use hyper::{
    body::Incoming,
    rt::{Read, Write, bounds::Http2ServerConnExec},
    server::conn::{http1, http2},
    service::HttpService,
};
use tokio::io::AsyncRead;

use super::policing::{Observed, PolicedIo};

type BoxError = Box<dyn Error + Send + Sync>;

/// A connection of hyper's, by its protocol.
pub trait HttpConnection: Future<Output = hyper::Result<()>> {
    /// Whether the server closes a connection without calls and without a word.
    const IS_CLOSED_WHEN_IDLE: bool;

    /// How long it may have no call before it is [parked](ParkedConnection).
    const PARKED_AFTER: Option<Duration> = None;

    /// Whether it is parked.
    const IS_PARKED: bool = false;

    /// Polls the connection. `is_answered` is whether it has no call, and nothing to write.
    fn poll_turn(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        _observed: &Observed,
        _is_answered: impl Fn() -> bool,
    ) -> Poll<hyper::Result<()>> {
        self.poll(cx)
    }

    /// Tells the peer to begin no more calls.
    fn go_away(self: Pin<&mut Self>, is_idle: bool);
}

impl<I, S, B, E> HttpConnection for http2::Connection<I, S, E>
where
    Self: Future<Output = hyper::Result<()>>,
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<BoxError>,
    I: Read + Write + Unpin,
    B: Body + 'static,
    B::Error: Into<BoxError>,
    E: Http2ServerConnExec<S::Future, B>,
{
    const IS_CLOSED_WHEN_IDLE: bool = false;

    fn go_away(self: Pin<&mut Self>, _is_idle: bool) {
        self.graceful_shutdown();
    }
}

impl<I, S, B> HttpConnection for http1::Connection<I, S>
where
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<BoxError>,
    I: Read + Write + Unpin,
    B: Body + 'static,
    B::Error: Into<BoxError>,
{
    const IS_CLOSED_WHEN_IDLE: bool = true;
    const PARKED_AFTER: Option<Duration> = Some(Duration::from_secs(1));

    fn poll_turn(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        observed: &Observed,
        is_answered: impl Fn() -> bool,
    ) -> Poll<hyper::Result<()>> {
        if is_answered() {
            observed.set_answered();
        }
        let progress = self.poll(cx);
        if observed.is_over() {
            // hyper would go on waiting for the answer to a request whose body has failed.
            return Poll::Ready(Ok(()));
        }
        if progress.is_pending() && observed.is_waiting() && is_answered() {
            // hyper waits for the socket, and the next request has been read from it already.
            cx.waker().wake_by_ref();
        }
        progress
    }

    /// hyper closes an idle connection at this, and a request may be on its way. Its answer
    /// will say so instead.
    fn go_away(self: Pin<&mut Self>, is_idle: bool) {
        if !is_idle {
            self.graceful_shutdown();
        }
    }
}

/// A connection of HTTP/1 without a request, and without hyper: its buffers and futures take
/// more than the rest of an idle connection. Resolves once it is over or has bytes to read.
pub struct ParkedConnection<'a, T>(pub &'a mut PolicedIo<T>);

impl<T: AsyncRead + Unpin> Future for ParkedConnection<'_, T> {
    type Output = hyper::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_begun(cx).map(Ok)
    }
}

impl<T: AsyncRead + Unpin> HttpConnection for ParkedConnection<'_, T> {
    const IS_CLOSED_WHEN_IDLE: bool = true;
    const IS_PARKED: bool = true;

    fn go_away(self: Pin<&mut Self>, _is_idle: bool) {}
}
