//! What stores measure, as src/telemetry/catalog.rs describes it.

use std::time::Instant;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::util::counter::at_zero;

pub const OPERATION_DURATION: &str = "user_service_store_operation_duration_seconds";
pub const QUEUE_DEPTH: &str = "user_service_store_queue_depth";
pub const QUEUE_LIMIT: &str = "user_service_store_queue_limit";
pub const BATCH_SIZE: &str = "user_service_store_batch_size";
pub const WRITABLE: &str = "user_service_store_writable";

/// How the writer does.
pub(super) struct WriterMetrics {
    pub queue_depth: Gauge,
    pub batch_size: Histogram,
    /// What a commit took lately, in seconds.
    pub commit_time: Gauge,
    /// Writes that found the queue full.
    pub refused_full: Counter,
    /// Writes that would have waited behind more batches than quick commits clear.
    pub refused_wait: Counter,
    /// Writes whose deadline was before the end of their commit.
    pub refused_deadline: Counter,
    /// Queued writes that a slower commit than expected made late.
    pub refused_expired: Counter,
}

impl WriterMetrics {
    pub fn new(queue_limit: usize) -> Self {
        gauge!(QUEUE_LIMIT).set(count(queue_limit));
        let refused =
            |reason| at_zero(counter!("user_service_store_writes_refused_total", "reason" => reason));
        let commit_time = gauge!("user_service_store_commit_seconds");
        commit_time.set(0.0);
        Self {
            queue_depth: gauge!(QUEUE_DEPTH),
            batch_size: histogram!(BATCH_SIZE),
            commit_time,
            refused_full: refused("full"),
            refused_wait: refused("wait"),
            refused_deadline: refused("deadline"),
            refused_expired: refused("expired"),
        }
    }
}

/// Panics of the writer. Looked up when there is one, so that it counts for any store.
pub(super) fn writer_panics() -> Counter {
    counter!("user_service_store_writer_panics_total")
}

/// How reads do that wait for their turn.
pub(super) struct ReadQueueMetrics {
    /// What a read took lately, in seconds.
    pub read_time: Gauge,
    /// How many may wait, because of that.
    pub waiting_limit: Gauge,
    /// Reads that would have waited for too much work.
    pub refused_wait: Counter,
    /// Reads whose deadline was before their end.
    pub refused_deadline: Counter,
    /// Reads that slower ones than expected made late.
    pub refused_expired: Counter,
}

impl ReadQueueMetrics {
    pub fn new(max_calls: usize) -> Self {
        let refused =
            |reason| at_zero(counter!("user_service_store_reads_refused_total", "reason" => reason));
        let metrics = Self {
            read_time: gauge!("user_service_store_read_seconds"),
            waiting_limit: gauge!("user_service_store_read_queue_limit"),
            refused_wait: refused("wait"),
            refused_deadline: refused("deadline"),
            refused_expired: refused("expired"),
        };
        metrics.read_time.set(0.0);
        metrics.waiting_limit.set(count(max_calls));
        metrics
    }
}

/// So many, as a gauge shows it.
pub(super) fn count(things: usize) -> f64 {
    f64::from(u32::try_from(things).unwrap_or(u32::MAX))
}

/// Reads of a store that have not ended.
pub(super) struct ReadMetrics {
    queued: Gauge,
    in_flight: Gauge,
}

impl ReadMetrics {
    pub fn new() -> Self {
        let reads = |state: &'static str| gauge!("user_service_store_reads", "state" => state);
        let metrics = Self { queued: reads("queued"), in_flight: reads("in_flight") };
        metrics.queued.set(0.0);
        metrics.in_flight.set(0.0);
        metrics
    }

    /// One that waits for its turn, until this is dropped.
    pub fn queued(&self) -> GaugeGuard {
        GaugeGuard::one(&self.queued)
    }

    /// One that the store is to answer, until this is dropped.
    pub fn in_flight(&self) -> GaugeGuard {
        GaugeGuard::one(&self.in_flight)
    }
}

/// A gauge that is one higher until this is dropped.
pub(super) struct GaugeGuard(Gauge);

impl GaugeGuard {
    fn one(gauge: &Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// How connections to a database do that are for one `use`.
pub(super) struct ConnectionMetrics {
    open: Gauge,
    pub connected: Counter,
    pub failed: Counter,
}

impl ConnectionMetrics {
    pub fn new(purpose: &'static str) -> Self {
        let connects = |outcome| counter!("user_service_store_connects_total", "outcome" => outcome);
        // For each link there is to be one.
        gauge!("user_service_store_connections_limit", "use" => purpose).increment(1.0);
        Self {
            open: gauge!("user_service_store_connections", "use" => purpose),
            connected: connects("connected"),
            failed: connects("failed"),
        }
    }

    /// A connection is open, until this is dropped.
    pub fn opened(&self) -> GaugeGuard {
        GaugeGuard::one(&self.open)
    }
}

/// How often an operation was made again.
pub(super) fn retries(operation: &'static str) -> Counter {
    counter!("user_service_store_retries_total", "operation" => operation)
}

/// Whether writes work.
pub(super) fn writable() -> Gauge {
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
