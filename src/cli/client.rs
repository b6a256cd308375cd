//! What the commands that call a server share.

use std::{
    fmt::Display,
    future::Future,
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::oneshot};
use tonic::{
    Status,
    transport::{self, Channel, Endpoint},
};

use super::http2_probe::await_settings;
use crate::util::error_chain::ErrorChain;

/// How often a server is asked whether it is there while a call is open.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Runs a command on a new runtime; one thread is enough for a client.
pub fn block_on(command: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => {
            eprintln!("user-service: cannot start a runtime: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Connects to `HOST:PORT`, in plain text, and waits until HTTP/2 is spoken there.
///
/// # Errors
/// A text that says what went wrong, for people.
pub async fn connect(addr: &str, timeout: Duration) -> Result<Channel, String> {
    match tokio::time::timeout(timeout, greeted(addr)).await {
        Ok(connected) => connected,
        Err(_) => Err(format!("no HTTP/2 connection within {} ms", timeout.as_millis())),
    }
}

async fn greeted(addr: &str) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).map_err(chain)?;
    // A stream must not wait for ever for a server that is gone without a word.
    let endpoint = endpoint.http2_keep_alive_interval(PING_INTERVAL).keep_alive_timeout(PING_INTERVAL);
    let (waiting, greeting) = oneshot::channel();
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
    match greeting.await {
        Ok(()) => Ok(channel),
        Err(_) => Err("what listens there does not speak HTTP/2".into()),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "what map_err takes")]
fn chain(error: transport::Error) -> String {
    ErrorChain(&error).to_string()
}

/// Prints a line. A closed stdout must not stop the command: `println!` would panic,
/// and smoke would leave its user behind.
pub fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// A failed call in one line.
pub fn describe(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}
