//! Lines on their way to a stream: through a bounded queue and a separate thread, so that
//! neither a reader that stops reading nor a slow disk delays a call.

use std::{
    io::Write,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

/// How long the last lines may take: a little more than the writer gives itself.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(1_500);

/// The lines that are still to be written.
#[derive(Clone, Debug)]
pub struct LogWriter {
    guard: Arc<Mutex<Option<WorkerGuard>>>,
    dropped: ErrorCounter,
}

impl LogWriter {
    /// Starts the thread of this name, which writes to `stream`. As many lines as
    /// `max_queued` may wait; further ones are dropped and counted.
    pub fn start(
        stream: impl Write + Send + 'static,
        max_queued: usize,
        thread: &str,
    ) -> (NonBlocking, Self) {
        let builder = NonBlockingBuilder::default().lossy(true);
        let (writer, guard) = builder.buffered_lines_limit(max_queued).thread_name(thread).finish(stream);
        let dropped = writer.error_counter();
        (writer, Self { guard: Arc::new(Mutex::new(Some(guard))), dropped })
    }

    /// Flushes the queue, if the stream takes it, and ends the thread: for the end of the
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
