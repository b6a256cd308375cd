//! What connections of the two protocols differ in, for the loop that serves them.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http_body::Body;
use hyper::{
    body::Incoming,
    rt::{Read, Write},
    server::conn::http1,
    service::HttpService,
};
use tokio::io::AsyncRead;

use super::policing::{Observed, PolicedIo};

pub type BoxError = Box<dyn Error + Send + Sync>;

/// Why a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    #[error(transparent)]
    Http1(#[from] hyper::Error),
    #[error(transparent)]
    Http2(#[from] h2::Error),
    #[error("the peer has not answered a PING in time")]
    Unresponsive,
}

/// What a turn of a connection came to.
#[derive(Debug)]
pub enum Turn {
    /// The connection is over.
    Over(Result<(), ConnectionError>),
    /// It goes on: with hyper if it was [parked](ParkedConnection), and parked otherwise.
    Paused,
}

/// A connection, by its protocol.
pub trait HttpConnection {
    /// Whether the server closes a connection without calls and without a word.
    const IS_CLOSED_WHEN_IDLE: bool;

    /// Polls the connection. `is_answered` is whether it has no call, and nothing to write.
    fn poll_turn(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        observed: &Observed,
        is_answered: impl Fn() -> bool,
    ) -> Poll<Turn>;

    /// Tells the peer to begin no more calls.
    fn go_away(self: Pin<&mut Self>, is_idle: bool);
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

    fn poll_turn(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        observed: &Observed,
        is_answered: impl Fn() -> bool,
    ) -> Poll<Turn> {
        if is_answered() {
            observed.set_answered();
        }
        let progress = self.poll(cx);
        if observed.is_over() {
            // hyper would go on waiting for the answer to a request whose body has failed.
            return Poll::Ready(Turn::Over(Ok(())));
        }
        if progress.is_pending() && is_answered() {
            if observed.is_between() {
                return Poll::Ready(Turn::Paused);
            }
            if observed.is_waiting() {
                // hyper waits for the socket, and the next request has been read from it already.
                cx.waker().wake_by_ref();
            }
        }
        progress.map(|end| Turn::Over(end.map_err(Into::into)))
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
/// more than the rest of an idle connection.
pub struct ParkedConnection<'a, T>(pub &'a mut PolicedIo<T>);

impl<T: AsyncRead + Unpin> HttpConnection for ParkedConnection<'_, T> {
    const IS_CLOSED_WHEN_IDLE: bool = true;

    fn poll_turn(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        observed: &Observed,
        _is_answered: impl Fn() -> bool,
    ) -> Poll<Turn> {
        ready!(self.0.poll_begun(cx));
        Poll::Ready(if observed.is_over() { Turn::Over(Ok(())) } else { Turn::Paused })
    }

    fn go_away(self: Pin<&mut Self>, _is_idle: bool) {}
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, convert::Infallible, future::poll_fn, time::Duration};

    use bytes::Bytes;
    use futures_util::FutureExt;
    use http::Response;
    use http_body_util::Full;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        sync::Notify,
    };

    use super::*;

    const MAX_HEAD_BYTES: usize = 16 * 1_024;

    #[tokio::test]
    async fn a_connection_is_parked_as_soon_as_every_request_is_answered() {
        let (mut client, server) = duplex(MAX_HEAD_BYTES);
        let (mut io, observed) = PolicedIo::new(server, Duration::MAX);
        io.expect_http1(MAX_HEAD_BYTES);
        let (calls, gate) = (Cell::new(0), Notify::new());
        let service = service_fn(|_| async {
            calls.set(calls.get() + 1);
            gate.notified().await;
            calls.set(calls.get() - 1);
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"answer"))))
        });
        let mut connection = super::super::http1(MAX_HEAD_BYTES).serve_connection(TokioIo::new(io), service);
        let mut turn = || {
            let turn = poll_fn(|cx| {
                observed.begin_turn();
                Pin::new(&mut connection).poll_turn(cx, &observed, || calls.get() == 0)
            });
            turn.now_or_never()
        };
        assert!(turn().is_none(), "no request has come");
        client.write_all(&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".repeat(2)).await.unwrap();
        assert!(turn().is_none() && calls.get() == 1, "the first is being answered");
        gate.notify_one();
        assert!(turn().is_none(), "the second waits");
        assert!(turn().is_none() && calls.get() == 1, "the second is being answered");
        gate.notify_one();
        assert!(matches!(turn(), Some(Turn::Paused)));
        let mut answers = [0; 1_024];
        let len = client.read(&mut answers).await.unwrap();
        let answers = String::from_utf8_lossy(&answers[..len]);
        assert_eq!(answers.matches("answer").count(), 2, "{answers}");
    }
}
