//! The signals that ask the process to end.

use std::io;

use tokio::{
    select,
    signal::unix::{Signal as Stream, SignalKind, signal},
};

/// A request to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT, of a terminal.
    Interrupt,
    /// SIGTERM, of a supervisor.
    Terminate,
}

impl Signal {
    /// How a process exits that such a signal has ended, as shells count it.
    pub fn exit_code(self) -> i32 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

/// Both signals, from the moment this is made.
#[derive(Debug)]
pub struct Signals {
    interrupt: Stream,
    terminate: Stream,
}

impl Signals {
    pub fn catch() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The next request to end: the first begins the drain.
    pub async fn next(&mut self) -> Signal {
        select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
        }
    }

    /// Exits immediately with the next one. For a task next to the drain.
    /// Only `last` is done before the exit.
    pub async fn exit_on_next(mut self, last: impl Future<Output = ()>) {
        let signal = self.next().await;
        tracing::warn!(?signal, "a second signal: exiting without waiting for calls");
        last.await;
        std::process::exit(signal.exit_code());
    }
}
