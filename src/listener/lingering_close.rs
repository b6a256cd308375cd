//! The lingering close: how a socket is closed without losing what was written to it.
//!
//! A socket that is closed with unread bytes answers RST, and so does a closed one to
//! every byte that arrives later. An RST discards what the peer has not received yet,
//! and some peers discard what they have received and not read. HTTP/2 peers send
//! `WINDOW_UPDATE`, PING ACK and the rest of requests until they have read the end. So a
//! connection is closed in three steps, each of which ends when the peer closes:
//!
//! 1. Read and discard until the peer's kernel has acknowledged every byte.
//! 2. Read and discard while the peer closes by itself, as HTTP/2 peers do once they have
//!    read a GOAWAY and have no streams left. There is no FIN before that: it would tell
//!    a proxy that the connection has failed while it still has answers to pass on.
//! 3. Send FIN to a peer that stays, read and discard for as long again, and close.
//!
//! **Invariant:** each step is bounded in time, and all together in bytes and in pace.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use metrics::{Counter, counter};
use rustix::{
    event::{PollFd, PollFlags, poll},
    time::Timespec,
};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep, sleep_until},
};

/// How long a peer that has everything may say nothing, before FIN and after it.
const SILENCE: Duration = Duration::from_secs(1);

/// How long a peer that has everything may go on talking.
const TALK: Duration = Duration::from_secs(5);

/// The most bytes that are discarded: what the flow control window of a connection lets
/// a peer send without asking, and as much again for other frames.
const DISCARDED_BYTES: usize = 2 * 1_024 * 1_024;

/// After so many discarded bytes a connection pauses, for [`PAUSE`]: a peer that floods must not
/// keep a serving thread from its other connections. The peer's kernel has to wait, too.
const BURST_BYTES: usize = 64 * 1_024;

/// How long a connection pauses; the granularity of tokio's timers.
const PAUSE: Duration = Duration::from_millis(1);

/// How often the kernel is asked whether the peer has acknowledged everything. It tells
/// nobody when.
const ASK: Duration = Duration::from_millis(20);

/// Bytes that the kernel keeps unsent for one connection before it takes no more.
/// Without a bound it takes megabytes, which a keepalive PING would have to wait behind.
const UNSENT_BYTES: u32 = 64 * 1_024;

/// A socket that knows whether its peer has acknowledged what was written.
pub trait Socket: AsyncRead + AsyncWrite + Unpin {
    /// Whether the kernel has every byte that was written. TLS keeps some until then.
    fn written(&self) -> bool;

    /// Has [`Self::acknowledged`] tell the truth. Nothing is written after that.
    fn expect_acknowledgment(&self);

    /// Whether the peer's kernel has everything.
    fn acknowledged(&self) -> bool;
}

/// Linux does not offer SIOCOUTQ without `unsafe` code. It reports POLLOUT when a third
/// of the send buffer is free and fewer bytes than `TCP_NOTSENT_LOWAT` are unsent (tcp(7)),
/// so with the smallest buffer POLLOUT means that hardly a segment is unacknowledged.
impl Socket for TcpStream {
    fn written(&self) -> bool {
        true
    }

    fn expect_acknowledgment(&self) {
        let socket = SockRef::from(self);
        // A socket that refuses either is taken for acknowledged too early at worst.
        let _ = socket.set_tcp_notsent_lowat(1);
        let _ = socket.set_send_buffer_size(1);
    }

    fn acknowledged(&self) -> bool {
        let mut fds = [PollFd::new(self, PollFlags::OUT)];
        let polled = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        polled.is_ok() && fds[0].revents().intersects(PollFlags::OUT | PollFlags::ERR | PollFlags::HUP)
    }
}

/// Bounds what the kernel keeps unsent for a connection.
pub fn bound_unsent(stream: &std::net::TcpStream) {
    // A kernel that refuses it keeps more.
    let _ = SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES);
}

/// How a lingering close ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The peer closed.
    Peer,
    /// The peer has everything and stayed for too long.
    Stayed,
    /// The peer sent too much.
    Flooded,
    /// The peer did not acknowledge everything in time.
    Unacknowledged,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Peer, Self::Stayed, Self::Flooded, Self::Unacknowledged];

    fn name(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Stayed => "stayed",
            Self::Flooded => "flooded",
            Self::Unacknowledged => "unacknowledged",
        }
    }
}

/// Counts the lingering closes of one port.
#[derive(Clone)]
pub struct Closes([Counter; Outcome::ALL.len()]);

impl Closes {
    pub fn of(port: &'static str) -> Self {
        Self(Outcome::ALL.map(
            |outcome| counter!("user_service_lingering_closes_total", "port" => port, "outcome" => outcome.name()),
        ))
    }

    pub fn count(&self, outcome: Outcome) {
        self.0[outcome as usize].increment(1);
    }
}

/// A socket whose drop does not close it: it returns to the [`Owner`].
pub struct Lent<T: Socket> {
    /// `None` only while it is dropped.
    socket: Option<T>,
    blocked: bool,
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    returned: Mutex<Option<T>>,
    blocked: AtomicBool,
}

impl<T> Shared<T> {
    fn returned(&self) -> MutexGuard<'_, Option<T>> {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes a socket that has been [`Lent`].
pub struct Owner<T>(Arc<Shared<T>>);

/// Lends a socket to what speaks a protocol over it. A lent socket sends no FIN, because the
/// owner has still to tell the peer why its connection ends.
pub fn lend<T: Socket>(socket: T) -> (Lent<T>, Owner<T>) {
    let shared = Arc::new(Shared { returned: Mutex::new(None), blocked: AtomicBool::new(false) });
    (Lent { socket: Some(socket), blocked: false, shared: Arc::clone(&shared) }, Owner(shared))
}

impl<T> Owner<T> {
    /// Whether the kernel takes no more bytes.
    pub fn blocked(&self) -> bool {
        self.0.blocked.load(Relaxed)
    }

    /// The socket, once the [`Lent`] one was dropped.
    pub fn returned(&self) -> Option<T> {
        self.0.returned().take()
    }
}

impl<T: Socket> Drop for Lent<T> {
    fn drop(&mut self) {
        *self.shared.returned() = self.socket.take();
    }
}

impl<T: Socket> Lent<T> {
    pub fn get_ref(&self) -> &T {
        self.socket.as_ref().expect("it is there until it is dropped")
    }

    fn socket(&mut self) -> Pin<&mut T> {
        Pin::new(self.socket.as_mut().expect("it is there until it is dropped"))
    }

    fn note<R>(&mut self, written: Poll<R>) -> Poll<R> {
        if self.blocked != written.is_pending() {
            self.blocked = written.is_pending();
            self.shared.blocked.store(self.blocked, Relaxed);
        }
        written
    }
}

impl<T: Socket> AsyncRead for Lent<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.socket().poll_read(cx, buf)
    }
}

impl<T: Socket> AsyncWrite for Lent<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.socket().poll_write(cx, buf);
        self.note(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TLS says only here that the kernel takes no more.
        let flushed = self.socket().poll_flush(cx);
        self.note(flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.socket().poll_write_vectored(cx, bufs);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }
}

/// Writes what the kernel takes of these bytes immediately.
pub async fn write_now<T: Socket>(socket: &mut T, bytes: &[u8]) {
    // A peer that does not get it is closed all the same.
    poll_fn(|cx| {
        if let Poll::Ready(Ok(_)) = Pin::new(&mut *socket).poll_write(cx, bytes) {
            let _ = Pin::new(&mut *socket).poll_flush(cx);
        }
        Poll::Ready(())
    })
    .await;
}

/// Tells the peer that nothing more will come.
pub async fn finish<T: Socket>(socket: &mut T) {
    // It fails where the peer has gone, which the next read tells.
    let _ = poll_fn(|cx| Pin::new(&mut *socket).poll_shutdown(cx)).await;
}

/// A lingering close under way.
pub struct Closing<T> {
    socket: T,
    left: usize,
    /// Bytes that may be discarded until the next pause.
    burst: usize,
}

impl<T: Socket> Closing<T> {
    pub fn new(socket: T) -> Self {
        Self { socket, left: DISCARDED_BYTES, burst: BURST_BYTES }
    }

    /// Discards until the peer has acknowledged everything, which is `Ok`, or closes.
    pub async fn acknowledged(&mut self, until: Instant) -> Result<(), Outcome> {
        // The peer has closed first as a rule, and then there is nothing to ask.
        while self.discard(Instant::now()).await? {}
        let mut is_expecting = false;
        loop {
            if self.socket.written() {
                if !std::mem::replace(&mut is_expecting, true) {
                    self.socket.expect_acknowledgment();
                }
                if self.socket.acknowledged() {
                    return Ok(());
                }
            }
            let now = Instant::now();
            if until <= now {
                return Err(Outcome::Unacknowledged);
            }
            while self.discard(until.min(now + ASK)).await? {}
        }
    }

    /// Discards until the peer closes, or has had the time to do so.
    pub async fn closed(mut self) -> Outcome {
        let until = Instant::now() + TALK;
        let patience = || until.min(Instant::now() + SILENCE);
        let closed: Result<(), Outcome> = async {
            while self.discard(patience()).await? {}
            finish(&mut self.socket).await;
            while self.discard(patience()).await? {}
            Ok(())
        }
        .await;
        closed.err().unwrap_or(Outcome::Stayed)
    }

    /// Reads once. `false` where nothing has come until then.
    async fn discard(&mut self, until: Instant) -> Result<bool, Outcome> {
        if self.burst == 0 {
            self.burst = BURST_BYTES;
            Box::pin(sleep(PAUSE)).await;
        }
        let mut timer: Option<Pin<Box<Sleep>>> = None;
        poll_fn(|cx| {
            let mut bytes = [MaybeUninit::uninit(); 16 * 1_024];
            let mut buf = ReadBuf::uninit(&mut bytes);
            // What TLS has not passed on yet. Where it fails, the read says so.
            let _ = Pin::new(&mut self.socket).poll_flush(cx);
            if let Poll::Ready(read) = Pin::new(&mut self.socket).poll_read(cx, &mut buf) {
                let len = buf.filled().len();
                if read.is_err() || len == 0 {
                    // TLS answers a close_notify with one, as far as the kernel takes it.
                    let _ = Pin::new(&mut self.socket).poll_shutdown(cx);
                    return Poll::Ready(Err(Outcome::Peer));
                }
                self.left = self.left.saturating_sub(len);
                self.burst = self.burst.saturating_sub(len);
                let flooded = self.left == 0;
                return Poll::Ready(if flooded { Err(Outcome::Flooded) } else { Ok(true) });
            }
            if until <= Instant::now() {
                return Poll::Ready(Ok(false));
            }
            let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
            ready!(timer.as_mut().poll(cx));
            Poll::Ready(Ok(false))
        })
        .await
    }
}

#[cfg(test)]
impl Socket for tokio::io::DuplexStream {
    fn written(&self) -> bool {
        true
    }

    fn expect_acknowledgment(&self) {}

    fn acknowledged(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_discarded_in_bursts() {
        let (socket, mut peer) = duplex(BURST_BYTES);
        tokio::spawn(async move { while peer.write_all(&vec![0; BURST_BYTES]).await.is_ok() {} });
        let began = Instant::now();
        assert_eq!(Closing::new(socket).closed().await, Outcome::Flooded);
        let pauses = DISCARDED_BYTES / BURST_BYTES - 1;
        assert!(began.elapsed() >= PAUSE * u32::try_from(pauses).unwrap(), "{:?}", began.elapsed());
    }
}
