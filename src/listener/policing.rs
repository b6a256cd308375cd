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
//! **Invariant:** bytes are looked at and never changed. A connection that does not begin
//! with the preface of HTTP/2 is not looked at.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use metrics::{Counter, counter};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use self::{
    budget::FrameBudget,
    walker::{FrameHeader, FrameKind, FrameWalker},
};

mod budget;
mod walker;

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long the rest of a frame that is not DATA, or of a block of header fields, may
/// take to come. They are sent whole, and fit into a few packets.
const REST_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Frames cost too much, most of them of this kind.
    Frames(FrameKind),
    /// The rest of a frame, or of a header block, did not come.
    Incomplete,
}

impl Violation {
    const COUNT: usize = FrameKind::ALL.len() + 1;

    fn all() -> [Self; Self::COUNT] {
        std::array::from_fn(|index| {
            FrameKind::ALL.get(index).map_or(Self::Incomplete, |kind| Self::Frames(*kind))
        })
    }

    fn index(self) -> usize {
        match self {
            Self::Frames(kind) => kind as usize,
            Self::Incomplete => FrameKind::ALL.len(),
        }
    }

    /// Its name in the metric.
    fn name(self) -> &'static str {
        // The debug data of its GOAWAY, but for what they have in common.
        match self {
            Self::Incomplete => "incomplete",
            Self::Frames(_) => self.debug_data().trim_start_matches("too_many_"),
        }
    }

    /// What its GOAWAY says. grpc-go understands `too_many_pings`, and sends fewer.
    fn debug_data(self) -> &'static str {
        match self {
            Self::Incomplete => "incomplete_frame",
            Self::Frames(kind) => match kind {
                FrameKind::Data => "too_many_data",
                FrameKind::Headers => "too_many_headers",
                FrameKind::Priority => "too_many_priorities",
                FrameKind::RstStream => "too_many_resets",
                FrameKind::Settings => "too_many_settings",
                FrameKind::PushPromise => "too_many_push_promises",
                FrameKind::Ping => "too_many_pings",
                FrameKind::Goaway => "too_many_goaways",
                FrameKind::WindowUpdate => "too_many_window_updates",
                FrameKind::Continuation => "too_many_continuations",
                FrameKind::Unknown => "too_many_unknown",
            },
        }
    }

    /// The GOAWAY of a connection on which this is the last stream that was begun.
    fn goaway(self, last_stream: u32) -> Vec<u8> {
        const GOAWAY: u8 = 7;
        const ENHANCE_YOUR_CALM: u32 = 11;
        let debug_data = self.debug_data().as_bytes();
        // A debug data has a few bytes.
        let len = 8 + u8::try_from(debug_data.len()).unwrap_or(0);
        let mut frame = vec![0, 0, len, GOAWAY, 0, 0, 0, 0, 0];
        frame.extend(last_stream.to_be_bytes());
        frame.extend(ENHANCE_YOUR_CALM.to_be_bytes());
        frame.extend(debug_data);
        frame
    }
}

/// Counts the connections of one port that were ended for a [`Violation`].
#[derive(Clone)]
pub struct PolicedConnections([Counter; Violation::COUNT]);

impl PolicedConnections {
    pub fn of(port: &'static str) -> Self {
        Self(Violation::all().map(
            |violation| counter!("user_service_policed_connections_total", "port" => port, "frames" => violation.name()),
        ))
    }

    pub fn count(&self, violation: Violation) {
        self.0[violation.index()].increment(1);
    }
}

/// The state of a connection, for its owner.
#[derive(Debug, Default)]
pub struct Observed {
    handshake_done: AtomicBool,
    /// The index of a [`Violation`], and one more; 0 without any.
    violation: AtomicU8,
    last_stream: AtomicU32,
    /// The peer has taken nothing for too long.
    gone: AtomicBool,
    /// The connection has a new turn to be read.
    turn: AtomicBool,
}

impl Observed {
    /// To be called before each poll of the connection: the bytes read in one are bounded, so
    /// that calls and other connections have their turn.
    pub fn begin_turn(&self) {
        self.turn.store(true, Relaxed);
    }

    /// Whether the peer has taken nothing for too long.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Relaxed)
    }

    pub fn is_handshake_done(&self) -> bool {
        self.handshake_done.load(Relaxed)
    }

    /// Why the connection was ended, if it was.
    pub fn violation(&self) -> Option<Violation> {
        let index = usize::from(self.violation.load(Relaxed)).checked_sub(1)?;
        Violation::all().get(index).copied()
    }

    /// The GOAWAY that the peer is to be sent for it.
    pub fn goaway(&self) -> Option<Vec<u8>> {
        self.violation().map(|violation| violation.goaway(self.last_stream.load(Relaxed)))
    }

    fn violated(&self, violation: Violation) -> io::Error {
        self.violation.store(u8::try_from(violation.index() + 1).unwrap_or(u8::MAX), Relaxed);
        io::Error::other("the frames of the connection are policed")
    }
}

/// How far a connection has come.
#[derive(Debug)]
enum Stage {
    /// So many bytes of the preface have come.
    Preface(usize),
    Frames,
    /// It is no HTTP/2.
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

    /// Takes note of bytes that were read.
    fn read(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        match self.stage {
            Stage::Frames => {}
            Stage::Other => return Ok(()),
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
        if !matches!(self.stage, Stage::Frames) || self.walker.is_at_rest() {
            return Poll::Pending;
        }
        let rest = self.rest.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + REST_TIMEOUT)));
        rest.as_mut().poll(cx).map(|()| self.observed.violated(Violation::Incomplete))
    }

    fn wrote(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                self.budget.earn(bytes);
                self.taken = None;
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
        let before = buf.filled().len();
        match Pin::new(&mut self.inner).poll_read(cx, buf) {
            Poll::Pending => self.poll_rest(cx).map(Err),
            Poll::Ready(Ok(())) => Poll::Ready(self.read(&buf.filled()[before..])),
            failed @ Poll::Ready(Err(_)) => failed,
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
