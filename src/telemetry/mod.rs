//! Logs, metrics and spans.
//!
//! **Invariant:** no log line, label or span holds a name, an address or a token.

mod audit_writer;
pub mod catalog;
mod histograms;
mod log_writer;
mod logs;
mod metrics;
mod otlp_client;
mod process;
mod sampler;
mod span_queue;
mod span_queue_config;
#[cfg(test)]
pub mod testing;
mod traces;
mod variables;

use std::{io, time::Duration};

use self::{audit_writer::AuditWriter, traces::Traces, variables::Variables};
pub use self::{log_writer::LogWriter, logs::LogFilter, metrics::Metrics, sampler::Sampler};
use crate::config::Config;

/// The target of spans that go to the collector. Nothing else goes there, so log
/// events cost no span a thing.
pub const SPAN_TARGET: &str = "user_service::span";

/// Why telemetry could not start; says what to set.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error("log_filter is not a filter such as info or user_service=debug,warn: {0}")]
    Filter(String),
    #[error("{0}")]
    Traces(String),
    #[error("telemetry can be started only once in a process: {0}")]
    Twice(String),
    #[error("audit_log: the file cannot be opened: {0}")]
    Audit(std::io::Error),
}

/// Logs, metrics and spans, switched on.
#[derive(Debug)]
pub struct Telemetry {
    log_writer: LogWriter,
    audit: Option<AuditWriter>,
    log_filter: LogFilter,
    metrics: Metrics,
    traces: Option<Traces>,
    follows_callers: bool,
}

/// Which calls are traced.
#[derive(Clone, Copy, Debug)]
pub struct TraceConfig {
    /// `None` where spans would go nowhere.
    pub sampler: Option<Sampler>,
    /// Whether the trace that a caller names is read at all.
    pub follows_callers: bool,
}

/// How many log lines may wait.
const MAX_QUEUED_LOG_LINES: usize = 8_192;

/// Switches everything on for the process. `env` looks up the `OTEL_*` variables.
pub fn init(config: &Config, env: &dyn Fn(&str) -> Option<String>) -> Result<Telemetry, InitError> {
    let (writer, log_writer) = LogWriter::start(io::stderr(), MAX_QUEUED_LOG_LINES, "log");
    let (audit_lines, audit) = audit_writer::start(&config.audit_log).map_err(InitError::Audit)?.unzip();
    let metrics = metrics::install(log_writer.clone(), audit.clone(), config.metric_names)?;
    let env = Variables::new(env);
    let traces = Traces::from_env(&env)?;
    let follows_callers = traces::follows_callers(&env);
    let log_filter = logs::install(config, writer, audit_lines, traces.as_ref())?;
    for warning in env.into_warnings() {
        tracing::warn!("{warning}");
    }
    Ok(Telemetry { log_writer, audit, log_filter, metrics, traces, follows_callers })
}

impl Telemetry {
    /// Which calls are traced.
    pub fn trace_config(&self) -> TraceConfig {
        let sampler = self.traces.as_ref().map(|traces| traces.sampler);
        TraceConfig { sampler, follows_callers: self.follows_callers }
    }

    /// The metrics, to be rendered.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The log lines that are still to be written.
    pub fn log_writer(&self) -> &LogWriter {
        &self.log_writer
    }

    /// The log's filter, which can be changed.
    pub fn log_filter(&self) -> &LogFilter {
        &self.log_filter
    }

    /// Sends what spans there are, for no longer than `timeout`, and then writes the
    /// last log lines. Comes last in a shutdown, as every call that ends before it
    /// has a span to send.
    pub async fn shutdown(self, timeout: Duration) {
        if let Some(traces) = self.traces {
            flush(traces, timeout).await;
        }
        if let Some(audit) = self.audit {
            audit.lines.flush().await;
        }
        self.log_writer.flush().await;
    }
}

async fn flush(traces: Traces, timeout: Duration) {
    // It blocks until the exporter's own thread is done, which a thread that drives tasks must not.
    let flushed = tokio::task::spawn_blocking(move || traces.shutdown(timeout));
    match tokio::time::timeout(timeout, flushed).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => tracing::warn!(%error, "the last spans may not have been sent"),
        _ => tracing::warn!("the last spans were not sent in time"),
    }
}
