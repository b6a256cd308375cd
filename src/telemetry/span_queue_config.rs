//! How many spans may wait, and how long sending them may take: the numbers among the
//! standard `OTEL_*` variables.
//!
//! The SDK passes over what it cannot read, and takes a queue that no memory holds for
//! granted. Here both are refused.

use std::{ops::RangeInclusive, time::Duration};

type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

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
    pub fn from_env(env: Env) -> Result<Self, String> {
        let count = |name, default| {
            let read = number(env, name, 1..=MAX_SPANS)?;
            Ok::<_, String>(read.map_or(default, |count| usize::try_from(count).unwrap_or(usize::MAX)))
        };
        let time = |name| Ok::<_, String>(number(env, name, 1..=HOUR_MS)?.map(Duration::from_millis));
        let of_all = time("OTEL_EXPORTER_OTLP_TIMEOUT")?;
        let timeout = time("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT")?.or(of_all);
        Ok(Self {
            queue: count("OTEL_BSP_MAX_QUEUE_SIZE", 2_048)?,
            batch: count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)?,
            delay: time("OTEL_BSP_SCHEDULE_DELAY")?.unwrap_or(Duration::from_secs(5)),
            timeout: timeout.unwrap_or(Duration::from_secs(10)),
        })
    }
}

fn number(env: Env, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, String> {
    let Some(text) = env(name) else { return Ok(None) };
    match text.trim().parse() {
        Ok(number) if range.contains(&number) => Ok(Some(number)),
        _ => {
            Err(format!("{name} is {text:?}; it must be a number from {} to {}", range.start(), range.end()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(set: &'static [(&str, &str)]) -> Result<SpanQueueConfig, String> {
        SpanQueueConfig::from_env(&|key| {
            set.iter().find(|(name, _)| *name == key).map(|(_, value)| (*value).into())
        })
    }

    #[test]
    fn the_time_for_traces_goes_before_the_time_for_all() {
        let timeout = |set| limits(set).unwrap().timeout.as_secs();
        assert_eq!(timeout(&[]), 10);
        assert_eq!(timeout(&[("OTEL_EXPORTER_OTLP_TIMEOUT", "7000")]), 7);
        let both = &[("OTEL_EXPORTER_OTLP_TIMEOUT", "7000"), ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "3000")];
        assert_eq!(timeout(both), 3);
    }

    #[test]
    fn what_is_no_number_or_too_much_of_one_is_refused() {
        for set in [
            &[("OTEL_BSP_MAX_QUEUE_SIZE", "many")][..],
            &[("OTEL_BSP_MAX_QUEUE_SIZE", "0")],
            &[("OTEL_BSP_MAX_QUEUE_SIZE", "1000000000000")],
            &[("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "-1")],
            &[("OTEL_BSP_SCHEDULE_DELAY", "5s")],
            &[("OTEL_EXPORTER_OTLP_TIMEOUT", "10.5")],
        ] {
            let refused = limits(set).unwrap_err();
            assert!(refused.starts_with(set[0].0) && refused.contains("a number from 1 to"), "{refused}");
        }
    }
}
