//! How many spans may wait, and how long sending them may take: the numbers among the
//! standard `OTEL_*` variables.
//!
//! The SDK takes any size of a queue. Here a size that no memory holds is out of range.

use std::time::Duration;

use super::variables::Variables;

/// A queue of this many spans weighs a gigabyte or so.
const MAX_SPANS: u64 = 1_000_000;
const HOUR_MS: u64 = 3_600_000;

/// What the specification has a name for; its defaults are the specification's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanQueueConfig {
    /// The most spans that wait or are being sent.
    pub queue: usize,
    /// The most spans of one export.
    pub batch: usize,
    /// How long spans wait for others to be sent with.
    pub delay: Duration,
    /// How long sending a batch may take.
    pub timeout: Duration,
}

impl SpanQueueConfig {
    pub fn from_env(env: &Variables<'_>) -> Self {
        let count = |name, default| {
            let read = env.number(&[name], &(1..=MAX_SPANS));
            read.map_or(default, |count| usize::try_from(count).unwrap_or(usize::MAX))
        };
        let delay = env.number(&["OTEL_BSP_SCHEDULE_DELAY"], &(0..=HOUR_MS));
        let timeouts = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
        // By the specification 0 means no limit.
        let timeout = env.number(&timeouts, &(0..=HOUR_MS)).map(|ms| if ms == 0 { HOUR_MS } else { ms });
        Self {
            queue: count("OTEL_BSP_MAX_QUEUE_SIZE", 2_048),
            batch: count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512),
            // A delay of 0 would keep the SDK's thread busy.
            delay: Duration::from_millis(delay.unwrap_or(5_000).max(1)),
            timeout: Duration::from_millis(timeout.unwrap_or(10_000)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::variables::testing::read;

    fn limits(set: &[(&str, &str)]) -> (SpanQueueConfig, Vec<String>) {
        read(set, SpanQueueConfig::from_env)
    }

    #[test]
    fn the_time_for_traces_goes_before_the_time_for_all() {
        let timeout = |set: &[(&str, &str)]| limits(set).0.timeout.as_secs();
        assert_eq!(timeout(&[]), 10);
        assert_eq!(timeout(&[("OTEL_EXPORTER_OTLP_TIMEOUT", "7000")]), 7);
        let both = &[("OTEL_EXPORTER_OTLP_TIMEOUT", "7000"), ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "3000")];
        assert_eq!(timeout(both), 3);
        let empty = &[("OTEL_EXPORTER_OTLP_TIMEOUT", "7000"), ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "")];
        assert_eq!(timeout(empty), 7);
        assert_eq!(timeout(&[("OTEL_EXPORTER_OTLP_TIMEOUT", "0")]), 3_600, "0 is no limit");
    }

    #[test]
    fn a_number_that_cannot_be_used_is_ignored_with_a_warning() {
        let defaults = limits(&[]).0;
        for set in [
            ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "1000000000000"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "-1"),
            ("OTEL_BSP_SCHEDULE_DELAY", "5s"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10.5"),
        ] {
            let (read, warnings) = limits(&[set]);
            assert_eq!(read, defaults, "{set:?}");
            let [warning] = &warnings[..] else { panic!("{set:?}: {warnings:?}") };
            assert!(warning.starts_with(set.0) && warning.contains("a number from"), "{warning}");
        }
    }
}
