//! What stores measure:
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | `user_service_store_operation_duration_seconds` | histogram | `operation`: `get`, `batch_get`, `list`, `write` |
//! | `user_service_store_queue_depth` | gauge: writes that wait for the writer | |
//! | `user_service_store_queue_limit` | gauge: how many may wait before more are turned away | |
//! | `user_service_store_batch_size` | histogram: writes in one commit | |
//! | `user_service_store_writable` | gauge: 1 where writes work, 0 where they are off | |

use std::time::Instant;

use metrics::{Gauge, Histogram, describe_gauge, describe_histogram, gauge, histogram};

pub const OPERATION_DURATION: &str = "user_service_store_operation_duration_seconds";
pub const QUEUE_DEPTH: &str = "user_service_store_queue_depth";
pub const QUEUE_LIMIT: &str = "user_service_store_queue_limit";
pub const BATCH_SIZE: &str = "user_service_store_batch_size";
pub const WRITABLE: &str = "user_service_store_writable";

/// How long each operation takes, from the call to the answer; a read that the
/// cache answers is none.
pub(super) struct Durations {
    pub get: Histogram,
    pub batch_get: Histogram,
    pub list: Histogram,
    pub write: Histogram,
}

impl Durations {
    pub fn new() -> Self {
        describe_histogram!(OPERATION_DURATION, "How long an operation of the store took, in seconds");
        Self {
            get: histogram!(OPERATION_DURATION, "operation" => "get"),
            batch_get: histogram!(OPERATION_DURATION, "operation" => "batch_get"),
            list: histogram!(OPERATION_DURATION, "operation" => "list"),
            write: histogram!(OPERATION_DURATION, "operation" => "write"),
        }
    }
}

/// How the writer does.
#[derive(Clone)]
pub(super) struct WriterMetrics {
    pub queue_depth: Gauge,
    pub batch_size: Histogram,
}

impl WriterMetrics {
    pub fn new(queue_limit: usize) -> Self {
        describe_gauge!(QUEUE_DEPTH, "Writes that wait for the store's writer");
        describe_gauge!(QUEUE_LIMIT, "How many writes may wait before more are turned away");
        gauge!(QUEUE_LIMIT).set(f64::from(u32::try_from(queue_limit).unwrap_or(u32::MAX)));
        describe_histogram!(BATCH_SIZE, "Writes in one commit of the store");
        Self { queue_depth: gauge!(QUEUE_DEPTH), batch_size: histogram!(BATCH_SIZE) }
    }
}

/// Whether writes work.
pub(super) fn writable() -> Gauge {
    describe_gauge!(WRITABLE, "1 where the store takes writes, 0 where it does not");
    gauge!(WRITABLE)
}

/// Records the time from now until it is dropped, so that a call that is given
/// up counts too.
pub(super) struct Timer<'a> {
    histogram: &'a Histogram,
    since: Instant,
}

impl<'a> Timer<'a> {
    pub fn start(histogram: &'a Histogram) -> Self {
        Self { histogram, since: Instant::now() }
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        self.histogram.record(self.since.elapsed());
    }
}
