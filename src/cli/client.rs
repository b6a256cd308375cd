//! The connection of the commands that call a server.

use std::{io, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::oneshot};
use tonic::transport::{self, Channel, Endpoint};

use super::http2_probe::await_settings;
use crate::util::error_chain::ErrorChain;

/// How often a server is asked whether it is there while a call is open.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Connects to `HOST:PORT`, in plain text, and waits until HTTP/2 is spoken there.
///
/// # Errors
/// A text that says what went wrong, for people.
pub async fn connect(addr: &str, timeout: Duration) -> Result<Channel, String> {
    match tokio::time::timeout(timeout, await_http2(addr)).await {
        Ok(connected) => connected,
        Err(_) => Err(format!("no HTTP/2 connection within {} ms", timeout.as_millis())),
    }
}

async fn await_http2(addr: &str) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).map_err(chain)?;
    // A stream must not wait for ever for a server that is gone without a word.
    let endpoint = endpoint.http2_keep_alive_interval(PING_INTERVAL).keep_alive_timeout(PING_INTERVAL);
    let (waiting, settings) = oneshot::channel();
    let (addr, mut waiting) = (addr.to_owned(), Some(waiting));
    let connector = tower::service_fn(move |_| {
        let (addr, waiting) = (addr.clone(), waiting.take());
        async move {
            let stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            Ok::<_, io::Error>(TokioIo::new(await_settings(stream, waiting)))
        }
    });
    let channel = endpoint.connect_with_connector(connector).await.map_err(chain)?;
    match settings.await {
        Ok(()) => Ok(channel),
        Err(_) => Err("what listens there does not speak HTTP/2".into()),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "what map_err takes")]
fn chain(error: transport::Error) -> String {
    ErrorChain(&error).to_string()
}
