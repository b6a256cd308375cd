//! Log lines on their way to stderr: through a bounded queue and a separate
//! thread, so that a reader that stops reading the log delays no call.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

/// How many lines may wait. Further ones are dropped and counted.
const MAX_QUEUED_LINES: usize = 8_192;

/// How long the last lines may take: a little more than the writer gives itself.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Starts the thread that writes.
pub fn start() -> (NonBlocking, LogWriter) {
    let writer =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(MAX_QUEUED_LINES).thread_name("log");
    let (writer, guard) = writer.finish(io::stderr());
    let dropped = writer.error_counter();
    (writer, LogWriter::new(guard, dropped))
}

/// The lines that are still to be written.
#[derive(Clone, Debug)]
pub struct LogWriter {
    guard: Arc<Mutex<Option<WorkerGuard>>>,
    dropped: ErrorCounter,
}

impl LogWriter {
    /// Of the thread that `guard` stands for.
    pub fn new(guard: WorkerGuard, dropped: ErrorCounter) -> Self {
        Self { guard: Arc::new(Mutex::new(Some(guard))), dropped }
    }

    /// Flushes the queue, if stderr is read, and ends the log: for the end of the
    /// process.
    pub async fn flush(&self) {
        let guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner).take();
        // It blocks, and forever where stdout is the same pipe without a reader.
        let written = tokio::task::spawn_blocking(move || drop(guard));
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, written).await;
    }

    /// How many lines found the queue full.
    pub fn dropped(&self) -> usize {
        self.dropped.dropped_lines()
    }
}
