//! The metrics of the process, as Prometheus reads them.

use metrics::gauge;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use super::{
    InitError,
    audit_writer::AuditWriter,
    catalog,
    histograms::{Histograms, WithHistograms},
    log_writer::LogWriter,
    process::{self, Process},
};
use crate::config::MetricNames;

/// Every metric of the process.
#[derive(Clone, Debug)]
pub struct Metrics {
    recorder: PrometheusHandle,
    histograms: Histograms,
    process: Process,
    /// Of whose lines the lost ones are counted.
    lines: Option<LogWriter>,
    /// The same for audit lines, where there are any.
    audit: Option<AuditWriter>,
}

/// Installs the recorder of the process. With no names to record under there is none:
/// every counter, gauge and histogram then costs next to nothing.
pub fn install(
    lines: LogWriter,
    audit: Option<AuditWriter>,
    names: MetricNames,
) -> Result<Metrics, InitError> {
    let (recorder, metrics) = build(Some(lines), audit);
    if names != MetricNames::None {
        metrics::set_global_recorder(recorder).map_err(|error| InitError::Twice(error.to_string()))?;
        catalog::describe();
        gauge!("user_service_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    }
    Ok(metrics)
}

fn build(
    lines: Option<LogWriter>,
    audit: Option<AuditWriter>,
) -> (impl metrics::Recorder + Sync + 'static, Metrics) {
    let others = PrometheusBuilder::new().build_recorder();
    let histograms = Histograms::default();
    let metrics = Metrics {
        recorder: others.handle(),
        histograms: histograms.clone(),
        process: Process::start(),
        lines,
        audit,
    };
    (WithHistograms { others, histograms }, metrics)
}

impl Metrics {
    /// Of no process: for tests of what serves them.
    #[cfg(test)]
    pub fn detached() -> Self {
        build(None, None).1
    }

    /// Everything as it is now, in Prometheus' text format.
    pub fn render(&self) -> String {
        let mut text = self.recorder.render();
        self.histograms.render(&mut text);
        self.process.render(&mut text);
        if let Some(lines) = &self.lines {
            process::add(&mut text, "user_service_log_lines_dropped_total", lines.dropped());
        }
        if let Some(audit) = &self.audit {
            let name = "user_service_audit_lines_lost_total";
            process::add_labelled(
                &mut text,
                name,
                &[("queue_full", audit.lines.dropped()), ("write_failed", audit.failed())],
            );
        }
        text
    }
}
