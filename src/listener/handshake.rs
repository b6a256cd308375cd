//! A connection's bytes on their way in, watched until its handshake is done.
//!
//! The handshake is the client's half of the HTTP/2 preface: the 24 fixed bytes
//! and the whole first frame (its SETTINGS). Whether they are right is for h2 to
//! say; what is measured here is that they came. This is also where frames can be
//! policed: whatever reads or writes a connection passes through here.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE_BYTES: usize = 24;
const FRAME_HEAD_BYTES: usize = 9;

/// A connection that notes when its handshake is done.
pub struct PrefaceIo<T: AsyncRead + Unpin> {
    inner: T,
    progress: Progress,
    done: Arc<AtomicBool>,
}

impl<T: AsyncRead + Unpin> PrefaceIo<T> {
    /// Wraps a connection; the flag is set once the handshake is done.
    pub fn new(inner: T) -> (Self, Arc<AtomicBool>) {
        let done = Arc::new(AtomicBool::new(false));
        (Self { inner, progress: Progress::default(), done: Arc::clone(&done) }, done)
    }
}

/// How far a handshake has come.
#[derive(Debug, Default)]
struct Progress {
    received: usize,
    /// The length of the first frame's payload, as far as it is known.
    payload: usize,
}

impl Progress {
    /// Takes note of bytes in their order, and says whether they complete it.
    fn advance(&mut self, bytes: &[u8]) -> bool {
        for &byte in bytes {
            if self.complete() {
                break;
            }
            if (PREFACE_BYTES..PREFACE_BYTES + 3).contains(&self.received) {
                self.payload = self.payload << 8 | usize::from(byte);
            }
            self.received += 1;
        }
        self.complete()
    }

    fn complete(&self) -> bool {
        self.received >= PREFACE_BYTES + FRAME_HEAD_BYTES + self.payload
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for PrefaceIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let this = &mut *self;
        if !this.done.load(Relaxed) && this.progress.advance(&buf.filled()[before..]) {
            this.done.store(true, Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for PrefaceIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
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
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The preface and a SETTINGS frame with one setting.
    fn handshake() -> Vec<u8> {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend([0, 0, 6, 4, 0, 0, 0, 0, 0]);
        bytes.extend([0, 3, 0, 0, 0, 100]);
        bytes
    }

    #[test]
    fn it_takes_the_whole_first_frame_however_it_is_cut() {
        let bytes = handshake();
        for step in 1..=bytes.len() {
            let mut progress = Progress::default();
            let mut parts = bytes.chunks(step).peekable();
            while let Some(part) = parts.next() {
                assert_eq!(progress.advance(part), parts.peek().is_none(), "in steps of {step}");
            }
        }
    }

    #[test]
    fn a_byte_short_is_not_done() {
        let bytes = handshake();
        assert!(!Progress::default().advance(&bytes[..bytes.len() - 1]));
    }
}
