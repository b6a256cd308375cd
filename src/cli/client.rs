//! What the commands that call a server share.

use std::{
    fmt::Display,
    future::Future,
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

/// Runs a command on a runtime of its own: one thread is plenty for a client.
pub fn block_on(command: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => {
            eprintln!("user-service: cannot start a runtime: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Connects to `HOST:PORT`, in plain text.
///
/// # Errors
/// A text that says what went wrong, for people.
pub async fn connect(addr: &str, timeout: Duration) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).map_err(|error| causes(&error))?;
    match tokio::time::timeout(timeout, endpoint.connect()).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(causes(&error)),
        Err(_) => Err(format!("no connection within {} ms", timeout.as_millis())),
    }
}

/// Prints a line. Nobody reading it is no reason to stop: `println!` would panic,
/// and smoke would leave its user behind.
pub fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// A failed call in one line.
pub fn describe(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

/// An error and what caused it, in one line.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
