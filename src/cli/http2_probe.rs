//! A connection that tells when its server has sent an HTTP/2 greeting.
//!
//! A connection that TCP has made proves nothing: a process that hangs has it, too.
//! A peer speaks HTTP/2 if it sends the SETTINGS frame that a server sends first.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::oneshot,
};

const FRAME_HEAD_BYTES: usize = 9;
const SETTINGS: u8 = 4;

/// A connection, and who waits for its greeting. The waiting end in vain once it
/// cannot come any more.
pub struct AwaitSettings {
    stream: TcpStream,
    head: Vec<u8>,
    waiting: Option<oneshot::Sender<()>>,
}

impl AwaitSettings {
    pub fn new(stream: TcpStream, waiting: Option<oneshot::Sender<()>>) -> Self {
        Self { stream, head: Vec::with_capacity(FRAME_HEAD_BYTES), waiting }
    }

    fn observe(&mut self, bytes: &[u8]) {
        let missing = FRAME_HEAD_BYTES - self.head.len();
        self.head.extend(bytes.iter().take(missing));
        if bytes.is_empty() || self.head.len() == FRAME_HEAD_BYTES {
            let waiting = self.waiting.take();
            // A frame of SETTINGS, of the connection as a whole.
            if let (Some(waiting), [_, _, _, SETTINGS, _, 0, 0, 0, 0]) = (waiting, &self.head[..]) {
                let _ = waiting.send(());
            }
        }
    }
}

impl AsyncRead for AwaitSettings {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if self.waiting.is_some() {
            self.observe(&buf.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for AwaitSettings {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
