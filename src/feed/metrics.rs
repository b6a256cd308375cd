//! What the feed measures, as src/telemetry/catalog.rs describes it.

use metrics::{Gauge, Histogram, counter, gauge, histogram};

use crate::domain::{Entry, Timestamp};

pub(super) struct FeedMetrics {
    pub watches: Gauge,
    lag: Gauge,
    buffer: Gauge,
    delay: Histogram,
}

impl FeedMetrics {
    pub fn new(buffer_limit: usize) -> Self {
        for end in ["too_slow", "expired", "store"] {
            terminated(end).absolute(0);
        }
        let metrics = Self {
            watches: gauge!("user_service_watches"),
            lag: gauge!("user_service_feed_lag_changes"),
            buffer: gauge!("user_service_feed_buffer_bytes"),
            delay: histogram!("user_service_feed_delay_seconds"),
        };
        gauge!("user_service_feed_buffer_limit_bytes").set(float(buffer_limit as u64));
        metrics.watches.set(0.0);
        metrics.record_buffer(0, 0);
        metrics
    }

    /// Entries were read.
    pub fn read(&self, entries: &[Entry]) {
        let now = Timestamp::now().as_micros();
        for entry in entries {
            let micros = now.saturating_sub(entry.position.time.as_micros());
            self.delay.record(float(micros.max(0).cast_unsigned()) / 1e6);
        }
    }

    /// What the buffer weighs, and how many entries the slowest watch is behind.
    pub fn record_buffer(&self, bytes: usize, behind: u64) {
        self.buffer.set(float(bytes as u64));
        self.lag.set(float(behind));
    }
}

/// Watches that were ended, and not by their callers.
pub(super) fn terminated(reason: &'static str) -> metrics::Counter {
    counter!("user_service_watches_cut_total", "reason" => reason)
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floats")]
fn float(count: u64) -> f64 {
    count as f64
}
