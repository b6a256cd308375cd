//! Log lines on stderr: JSON for machines, text for a terminal.

use std::{
    io::{self, IsTerminal},
    panic,
    sync::{Arc, Mutex, PoisonError},
};

use opentelemetry::trace::TracerProvider;
use tracing::{Level, Metadata, Subscriber};
use tracing_appender::non_blocking::NonBlocking;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt, LevelFilter, filter_fn},
    fmt,
    layer::SubscriberExt,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt,
};

use super::{InitError, SPAN_TARGET, traces::Traces};
use crate::config::{AUDIT_TARGET, Config, LogFormat};

/// Which lines are logged, as it is now. Clones are the same filter.
#[derive(Clone, Debug)]
pub struct LogFilter {
    text: Arc<Mutex<String>>,
    /// `None` in tests of what changes it.
    handle: Option<reload::Handle<EnvFilter, Registry>>,
}

/// Installs the subscriber of the process: log lines, and spans where they go somewhere.
pub fn install(
    config: &Config,
    writer: NonBlocking,
    audit: Option<NonBlocking>,
    traces: Option<&Traces>,
) -> Result<LogFilter, InitError> {
    let (filter, handle) = reload::Layer::new(parse(&config.log_filter)?);
    let lines = lines(config.log_format, writer).with_filter(filter.and(filter_fn(is_line)));
    Registry::default()
        .with(lines)
        .with(audit.map(audit_lines))
        .with(traces.map(spans))
        .try_init()
        .map_err(|error| InitError::Twice(error.to_string()))?;
    log_panics();
    Ok(LogFilter { text: Arc::new(Mutex::new(config.log_filter.clone())), handle: Some(handle) })
}

impl LogFilter {
    /// Of no log: for tests of what changes it.
    #[cfg(test)]
    pub fn detached() -> Self {
        Self { text: Arc::default(), handle: None }
    }

    /// As it was set.
    pub fn current(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another one in force, until the process ends.
    pub fn set(&self, text: &str) -> Result<(), InitError> {
        let filter = parse(text)?;
        // Held until the filter is in force, so that the shown filter is the current one.
        let mut current = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = &self.handle {
            handle.reload(filter).map_err(|error| InitError::Filter(error.to_string()))?;
        }
        text.clone_into(&mut current);
        Ok(())
    }
}

/// What h2 warns of is what peers do, a line for each time: that would be a log at
/// their mercy. A filter that names h2 itself wins.
fn parse(filter: &str) -> Result<EnvFilter, InitError> {
    EnvFilter::builder()
        .parse(format!("h2=error,{filter}"))
        .map_err(|error| InitError::Filter(error.to_string()))
}

fn lines<S>(format: LogFormat, writer: NonBlocking) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let terminal = io::stderr().is_terminal();
    let lines = fmt::layer().with_writer(writer);
    match format {
        LogFormat::Auto if terminal => lines.boxed(),
        LogFormat::Text => lines.with_ansi(terminal).boxed(),
        LogFormat::Auto | LogFormat::Json => {
            // No spans in lines: every value that a line is searched by is a field.
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
    }
}

/// Audit lines are JSON whatever the log is, and no filter of the log leaves one out.
fn audit_lines<S>(writer: NonBlocking) -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let lines = fmt::layer().with_writer(writer).json().flatten_event(true);
    let lines = lines.with_level(false).with_current_span(false).with_span_list(false);
    lines.with_filter(filter_fn(|metadata| metadata.target() == AUDIT_TARGET))
}

/// Turns spans of [`SPAN_TARGET`] into the collector's, and nothing else.
fn spans<S>(traces: &Traces) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let only_spans = filter_fn(|metadata| !is_no_span(metadata)).with_max_level_hint(LevelFilter::INFO);
    // All that costs a span something and says nothing of a call.
    tracing_opentelemetry::layer()
        .with_tracer(traces.provider.tracer("user-service"))
        .with_context_activation(false)
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_level(false)
        .with_target(false)
        .with_filter(only_spans)
}

fn is_line(metadata: &Metadata<'_>) -> bool {
    is_no_span(metadata) && metadata.target() != AUDIT_TARGET
}

fn is_no_span(metadata: &Metadata<'_>) -> bool {
    metadata.target() != SPAN_TARGET
}

/// Logs where a panic was, and not what it said: that may hold a user's data.
fn log_panics() {
    panic::set_hook(Box::new(|info| {
        let location = info.location().map(tracing::field::display);
        let thread = std::thread::current();
        let thread = thread.name();
        tracing::event!(target: "user_service::panic", Level::ERROR, location, thread, "panic");
    }));
}
