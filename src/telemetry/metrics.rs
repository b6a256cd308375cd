//! The metrics of the process, as Prometheus reads them.

use std::{fmt::Display, time::Duration};

use metrics::gauge;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::{
    InitError, catalog,
    lines::Lines,
    process::{self, Process},
};
use crate::config::MetricNames;

/// Seconds: fine where this service answers, then as OpenTelemetry advises for
/// calls.
const DURATIONS: [f64; 18] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0,
    7.5, 10.0,
];

/// How many of something went together.
const SIZES: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Messages, in bytes: most are small, and the largest is a page of users.
const BYTES: [f64; 8] = [64.0, 256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0];

/// How often samples are sorted into their buckets. Until then every one is kept.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Every metric of the process.
#[derive(Clone, Debug)]
pub struct Metrics {
    recorder: PrometheusHandle,
    process: Process,
    /// Of whose lines the lost ones are counted.
    lines: Option<Lines>,
}

/// Installs the recorder of the process. With no names to record under there is none:
/// every counter, gauge and histogram then costs next to nothing.
pub fn install(lines: Lines, names: MetricNames) -> Result<Metrics, InitError> {
    let twice = |error: &dyn Display| InitError::Twice(error.to_string());
    let recorder = builder().map_err(|error| twice(&error))?.build_recorder();
    let handle = recorder.handle();
    if names != MetricNames::None {
        metrics::set_global_recorder(recorder).map_err(|error| twice(&error))?;
        catalog::describe();
        gauge!("user_service_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    }
    Ok(Metrics { recorder: handle, process: Process::start(), lines: Some(lines) })
}

/// A histogram without buckets would be a summary, which no query can add up over processes.
fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &DURATIONS)?
        .set_buckets_for_metric(Matcher::Suffix("_size".into()), &SIZES)?
        .set_buckets_for_metric(Matcher::Suffix("_bytes".into()), &BYTES)
}

impl Metrics {
    /// Of no process: for tests of what serves them.
    #[cfg(test)]
    pub fn detached() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder().handle();
        Self { recorder, process: Process::start(), lines: None }
    }

    /// Everything as it is now, in Prometheus' text format.
    pub fn render(&self) -> String {
        let mut text = self.recorder.render();
        self.process.render(&mut text);
        if let Some(lines) = &self.lines {
            process::add(&mut text, "user_service_log_lines_dropped_total", lines.dropped());
        }
        text
    }

    /// Keeps memory bounded; to be run for as long as the process lives.
    pub async fn keep_up(self) {
        let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            interval.tick().await;
            self.recorder.run_upkeep();
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics::histogram;

    use super::*;

    #[test]
    fn figures_of_several_processes_can_be_added_up() {
        let recorder = builder().unwrap().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            histogram!("user_service_store_batch_size").record(3.0);
            histogram!("user_service_store_operation_duration_seconds").record(0.003);
        });
        let text = recorder.handle().render();
        for bucket in ["batch_size_bucket{le=\"4\"} 1", "duration_seconds_bucket{le=\"0.005\"} 1"] {
            assert!(text.contains(bucket), "{bucket} in {text}");
        }
        assert!(!text.contains("quantile="), "{text}");
    }
}
