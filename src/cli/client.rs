//! The connection of the commands that call a server.

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::oneshot,
};
use tonic::{
    service::interceptor::InterceptedService,
    transport::{self, Channel, Endpoint},
};

use super::{
    http2_probe::await_settings,
    target::{Bearer, Target},
};
use crate::util::error_chain::ErrorChain;

/// How often a server is asked whether it is there while a call is open.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// A connection that sends the token, if there is one, with each call.
pub type Connection = InterceptedService<Channel, Bearer>;

/// Connects to a server and waits until HTTP/2 is spoken there.
///
/// # Errors
/// A text that says what went wrong, for people.
pub async fn connect(target: &Target, timeout: Duration) -> Result<Connection, String> {
    match tokio::time::timeout(timeout, await_http2(target)).await {
        Ok(connected) => connected,
        Err(_) => Err(format!("no HTTP/2 connection within {} ms", timeout.as_millis())),
    }
}

async fn await_http2(target: &Target) -> Result<Connection, String> {
    let (addr, bearer, tls) = (target.addr.clone(), target.bearer()?, target.tls()?);
    let endpoint = Endpoint::from_shared(format!("{}://{addr}", target.scheme())).map_err(chain)?;
    // A stream must not wait for ever for a server that is gone without a word.
    let endpoint = endpoint.http2_keep_alive_interval(PING_INTERVAL).keep_alive_timeout(PING_INTERVAL);
    let (waiting, settings) = oneshot::channel();
    let (mut waiting, error) = (Some(waiting), Arc::new(OnceLock::new()));
    let noted = Arc::clone(&error);
    let connector = tower::service_fn(move |_| {
        let (addr, tls, noted) = (addr.clone(), tls.clone(), Arc::clone(&noted));
        let waiting = waiting.take();
        async move {
            let stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            let stream: Box<dyn Stream> = match tls {
                None => Box::new(stream),
                Some((tls, name)) => Box::new(tls.connect(name, stream).await?),
            };
            Ok::<_, io::Error>(TokioIo::new(await_settings(NoteError { stream, noted }, waiting)))
        }
    });
    let channel = endpoint.connect_with_connector(connector).await.map_err(chain)?;
    match settings.await {
        Ok(()) => Ok(InterceptedService::new(channel, bearer)),
        // With TLS 1.3 a server refuses the client's certificate after the handshake.
        Err(_) => {
            Err(error.get().cloned().unwrap_or_else(|| "what listens there does not speak HTTP/2".into()))
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "what map_err takes")]
fn chain(error: transport::Error) -> String {
    ErrorChain(&error).to_string()
}

/// The bytes of a connection, with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Passes a connection on, and notes why it could not be read.
struct NoteError {
    stream: Box<dyn Stream>,
    noted: Arc<OnceLock<String>>,
}

impl AsyncRead for NoteError {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &read {
            let _ = self.noted.set(error.to_string());
        }
        read
    }
}

impl AsyncWrite for NoteError {
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
