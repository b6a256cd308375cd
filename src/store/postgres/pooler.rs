//! Whether a pooler stands between the store and its database.
//!
//! A server names its process when a connection begins, for requests to cancel, and
//! again in `pg_backend_pid()`. A pooler makes the first of the two up, because the
//! process changes from one transaction to the next.

use std::{
    future::{Ready, ready},
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::{
    Client, Error,
    tls::{ChannelBinding, TlsConnect, TlsStream},
};

/// Whether `backend`, the process that answers, is another one than the connection
/// began with.
pub(super) async fn is_between(client: &Client, backend: i32) -> Result<bool, Error> {
    // The driver keeps the process to itself, but writes it into requests to cancel.
    // This one goes nowhere.
    let mut request = CancelRequest(Vec::new());
    client.cancel_token().cancel_query_raw(&mut request, NoHandshake).await?;
    Ok(request.process() != Some(backend))
}

/// A request to cancel, as the driver would send it.
struct CancelRequest(Vec<u8>);

impl CancelRequest {
    /// It ends in the process and a secret, 32 bits each.
    fn process(&self) -> Option<i32> {
        let (_, end) = self.0.split_last_chunk::<8>()?;
        end.first_chunk().copied().map(i32::from_be_bytes)
    }
}

impl AsyncWrite for CancelRequest {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for CancelRequest {
    /// The answer to the request for TLS that may come first.
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        buffer.put_slice(&b"S"[..buffer.remaining().min(1)]);
        Poll::Ready(Ok(()))
    }
}

impl TlsStream for &mut CancelRequest {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

/// TLS without any, for bytes that stay here.
struct NoHandshake;

impl<'a> TlsConnect<&'a mut CancelRequest> for NoHandshake {
    type Stream = &'a mut CancelRequest;
    type Error = io::Error;
    type Future = Ready<io::Result<&'a mut CancelRequest>>;

    fn connect(self, stream: &'a mut CancelRequest) -> Self::Future {
        ready(Ok(stream))
    }
}
