//! The policing of frames: what a peer may send that keeps the server busy for nothing.
//!
//! HTTP/2 has many frames that cost the server work and are no part of a call: PING,
//! SETTINGS, PRIORITY, resets, empty DATA. Every byte that is read passes a counter here,
//! which knows each kind of frame and its cost. A peer that is over its
//! [budget](budget::FrameBudget) is sent GOAWAY with `ENHANCE_YOUR_CALM`, and its
//! connection ends with the lingering close.
//!
//! This is also where a handshake is seen to be done: the 24 bytes of the preface and the
//! whole first frame (the client's SETTINGS) have come. Whether they are right is for h2
//! to say.
//!
//! A connection that does not begin with the preface speaks HTTP/1, if it speaks HTTP at
//! all. Its [messages](http1) are policed as well; there the handshake is done with the
//! first whole head.
//!
//! **Invariant:** bytes are looked at and never changed.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use self::{
    budget::FrameBudget,
    http1::{Http1, Shown},
    refusal::Refusal,
    walker::{FrameHeader, FrameKind, FrameWalker},
};
use super::metrics::Protocol;

mod budget;
mod http1;
mod message_walker;
mod observed;
mod refusal;
mod violation;
mod walker;

pub use self::{
    observed::Observed,
    violation::{PolicedConnections, Violation},
};

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long the rest of a frame that is not DATA, or of a block of header fields, may
/// take to come. They are sent whole, and fit into a few packets.
const REST_TIMEOUT: Duration = Duration::from_secs(5);

/// How far a connection has come.
#[derive(Debug)]
enum Stage {
    /// So many bytes of the preface have come.
    Preface(usize),
    /// The preface has come, and h2 has still to read it.
    Replay,
    Frames,
    Http1(Box<Http1>),
    /// It is no HTTP/2, and not looked at.
    Other,
}

/// A connection whose frames are counted.
pub struct PolicedIo<T> {
    inner: T,
    stage: Stage,
    walker: FrameWalker,
    budget: FrameBudget,
    /// Until when the rest of what has begun must have come.
    rest: Option<Pin<Box<Sleep>>>,
    /// Until when the peer must have taken some of what waits to be written.
    taken: Option<Pin<Box<Sleep>>>,
    taken_timeout: Duration,
    observed: Arc<Observed>,
}

impl<T> PolicedIo<T> {
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// Wraps a connection from its first byte on. A peer that takes nothing of what waits to
    /// be written for `taken_timeout` is gone.
    pub fn new(inner: T, taken_timeout: Duration) -> (Self, Arc<Observed>) {
        let observed = Arc::new(Observed::default());
        let io = Self {
            inner,
            stage: Stage::Preface(0),
            walker: FrameWalker::default(),
            budget: FrameBudget::new(Instant::now()),
            rest: None,
            taken: None,
            taken_timeout,
            observed: Arc::clone(&observed),
        };
        (io, observed)
    }

    /// The connection speaks HTTP/1, whatever its first bytes are. A head may have so many.
    pub fn expect_http1(&mut self, max_head_bytes: usize) {
        if matches!(self.stage, Stage::Preface(_)) {
            self.begin_http1(max_head_bytes, &[]);
        }
    }

    fn begin_http1(&mut self, max_head_bytes: usize, read: &[u8]) {
        self.stage = Stage::Http1(Box::new(Http1::new(max_head_bytes, read)));
    }

    /// Takes note of bytes that were read.
    fn read(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        match self.stage {
            Stage::Frames => {}
            Stage::Replay | Stage::Http1(_) | Stage::Other => return Ok(()),
            Stage::Preface(received) => {
                let (part, frames) = bytes.split_at(bytes.len().min(PREFACE.len() - received));
                let received = received + part.len();
                self.stage = match received {
                    _ if !PREFACE[..received].ends_with(part) => Stage::Other,
                    received if received == PREFACE.len() => Stage::Frames,
                    received => Stage::Preface(received),
                };
                if !matches!(self.stage, Stage::Frames) {
                    return Ok(());
                }
                bytes = frames;
            }
        }
        let (budget, observed) = (&mut self.budget, &self.observed);
        let walked = self.walker.walk(bytes, |header: FrameHeader| {
            if header.kind == FrameKind::Headers {
                observed.last_stream.fetch_max(header.stream, Relaxed);
            }
            budget.pay(&header)
        });
        match walked {
            Ok(true) => self.rest = None,
            Ok(false) => {}
            Err(kind) => return Err(observed.violated(Violation::Frames(kind))),
        }
        if self.walker.has_ended_a_frame() {
            observed.handshake_done.store(true, Relaxed);
        }
        Ok(())
    }

    /// Ready once the peer has owed a part of a frame for too long.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let is_at_rest = match &self.stage {
            Stage::Frames => self.walker.is_at_rest(),
            Stage::Http1(http1) => http1.walker.is_at_rest(),
            Stage::Preface(_) | Stage::Replay | Stage::Other => true,
        };
        if is_at_rest {
            return Poll::Pending;
        }
        let rest = self.rest.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + REST_TIMEOUT)));
        ready!(rest.as_mut().poll(cx));
        Poll::Ready(match &self.stage {
            Stage::Http1(http1) => self.observed.refused(Refusal::Incomplete, http1.is_answering),
            _ => self.observed.violated(Violation::Incomplete),
        })
    }

    fn wrote(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                self.budget.earn(bytes);
                self.taken = None;
                if let Stage::Http1(http1) = &mut self.stage {
                    http1.is_answering = true;
                }
            }
            Poll::Ready(Err(_)) => {}
            // h2 reads no further then, so a keepalive PING would not be sent.
            Poll::Pending => {
                let timeout = self.taken_timeout;
                let taken = self.taken.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + timeout)));
                if taken.as_mut().poll(cx).is_ready() {
                    self.observed.gone.store(true, Relaxed);
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
        written
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for PolicedIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.observed.turn.load(Relaxed) {
            self.observed.turn.store(false, Relaxed);
            self.budget.begin_turn();
        }
        if self.budget.is_turn_over() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match self.stage {
            Stage::Preface(_) | Stage::Frames | Stage::Other => {}
            Stage::Http1(_) => return self.poll_read_http1(cx, buf),
            Stage::Replay => {
                buf.put_slice(PREFACE);
                self.stage = Stage::Frames;
                return Poll::Ready(Ok(()));
            }
        }
        let before = buf.filled().len();
        match Pin::new(&mut self.inner).poll_read(cx, buf) {
            Poll::Pending => self.poll_rest(cx).map(Err),
            Poll::Ready(Ok(())) => {
                self.observed.read.store(true, Relaxed);
                Poll::Ready(self.read(&buf.filled()[before..]))
            }
            failed @ Poll::Ready(Err(_)) => failed,
        }
    }
}

impl<T: AsyncRead + Unpin> PolicedIo<T> {
    /// Reads until the first bytes tell what the peer speaks. `None` once it has closed.
    pub fn poll_protocol(
        &mut self,
        cx: &mut Context<'_>,
        max_head_bytes: usize,
    ) -> Poll<io::Result<Option<Protocol>>> {
        loop {
            match &mut self.stage {
                Stage::Preface(received) => {
                    let received = *received;
                    let mut bytes = *PREFACE;
                    let mut buf = ReadBuf::new(&mut bytes[received..]);
                    ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buf))?;
                    let now = received + buf.filled().len();
                    if now == received {
                        return Poll::Ready(Ok(None));
                    }
                    if bytes[..now] != PREFACE[..now] {
                        self.begin_http1(max_head_bytes, &bytes[..now]);
                    } else if now == PREFACE.len() {
                        self.stage = Stage::Replay;
                    } else {
                        self.stage = Stage::Preface(now);
                    }
                }
                // hyper would answer a part of a line that is no request, also where it is no HTTP.
                Stage::Http1(http1) if !http1.holds_a_line() => {
                    if !ready!(http1.poll_hold(&mut self.inner, cx))? {
                        return Poll::Ready(Ok(None));
                    }
                }
                Stage::Http1(_) => return Poll::Ready(Ok(Some(Protocol::Http1))),
                Stage::Replay | Stage::Frames | Stage::Other => {
                    return Poll::Ready(Ok(Some(Protocol::Http2)));
                }
            }
        }
    }

    /// Reads the first bytes of the next request of HTTP/1, which are held until they are
    /// read again. Ready at the connection's end as well.
    pub fn poll_begun(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { inner, stage: Stage::Http1(http1), observed, .. } = self else { return Poll::Ready(()) };
        if http1.holds() {
            return Poll::Ready(());
        }
        if matches!(ready!(http1.poll_hold(inner, cx)), Ok(true)) {
            observed.between.store(false, Relaxed);
        } else {
            observed.over.store(true, Relaxed);
        }
        Poll::Ready(())
    }

    fn poll_read_http1(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { inner, stage: Stage::Http1(http1), budget, observed, .. } = self else {
            return Poll::Ready(Ok(()));
        };
        if observed.answered.swap(false, Relaxed) {
            http1.awaits_answer = false;
        }
        let shown = if http1.holds() {
            http1.release(buf.remaining(), budget).map(|released| match released {
                None => Shown::Later,
                Some((bytes, rested)) => {
                    buf.put_slice(&bytes);
                    Shown::Bytes { count: bytes.len(), rested }
                }
            })
        } else {
            let before = buf.filled().len();
            match Pin::new(inner).poll_read(cx, buf) {
                Poll::Pending => return self.poll_rest(cx).map(Err),
                Poll::Ready(Ok(())) if buf.filled().len() > before => {}
                ended @ Poll::Ready(_) => {
                    // hyper tells a service that reads a body, and waits for its answer.
                    observed.over.store(true, Relaxed);
                    return ended;
                }
            }
            let read = &buf.filled()[before..];
            let shown = http1.receive(read, budget);
            let count = if let Ok(Shown::Bytes { count, .. }) = shown { count } else { 0 };
            buf.set_filled(before + count);
            shown
        };
        if http1.walker.has_ended_a_head() {
            observed.handshake_done.store(true, Relaxed);
        }
        observed.between.store(http1.walker.is_between() && !http1.holds(), Relaxed);
        match shown {
            Ok(Shown::Bytes { rested, .. }) => {
                if rested {
                    self.rest = None;
                }
                Poll::Ready(Ok(()))
            }
            Ok(Shown::Later) => {
                observed.waiting.store(true, Relaxed);
                Poll::Pending
            }
            Err(refusal) => Poll::Ready(Err(observed.refused(refusal, http1.is_answering))),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for PolicedIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.wrote(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.wrote(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests;
