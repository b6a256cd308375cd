//! Spans on their way to the collector: how many may wait, and what became of each.
//!
//! The SDK drops what its queue cannot hold and says so in a log line. Here a span
//! that is one too many is not given to it in the first place, which can be
//! counted; and those that are being sent count as waiting, so the bound is one on
//! memory.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use metrics::{Counter, counter};
use opentelemetry::Context;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{self as sdk, BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanProcessor},
};

use super::{otlp_client::RejectedSpans, span_queue_config::SpanQueueConfig};
use crate::util::counter::at_zero;

/// The SDK's batches behind a bound.
#[derive(Debug)]
pub struct BoundedSpanProcessor {
    batches: BatchSpanProcessor,
    waiting: Arc<AtomicUsize>,
    most: usize,
    dropped: Counter,
}

impl BoundedSpanProcessor {
    pub fn new(exporter: SpanExporter, refused: RejectedSpans, limits: SpanQueueConfig) -> Self {
        let waiting = Arc::new(AtomicUsize::new(0));
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(limits.queue)
            .with_max_export_batch_size(limits.batch)
            .with_scheduled_delay(limits.delay)
            .build();
        let counted = CountingExporter::new(exporter, refused, waiting.clone());
        let batches = BatchSpanProcessor::builder(counted).with_batch_config(config).build();
        Self { batches, waiting, most: limits.queue, dropped: outcome("dropped") }
    }
}

impl SpanProcessor for BoundedSpanProcessor {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.waiting.fetch_add(1, Relaxed) < self.most {
            self.batches.on_end(span);
        } else {
            self.waiting.fetch_sub(1, Relaxed);
            self.dropped.increment(1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

/// An exporter that counts what it sends and what it could not send.
#[derive(Debug)]
struct CountingExporter {
    exporter: SpanExporter,
    refused: RejectedSpans,
    waiting: Arc<AtomicUsize>,
    sent: Counter,
    failed: Counter,
}

impl CountingExporter {
    fn new(exporter: SpanExporter, refused: RejectedSpans, waiting: Arc<AtomicUsize>) -> Self {
        Self { exporter, refused, waiting, sent: outcome("sent"), failed: outcome("failed") }
    }
}

impl sdk::SpanExporter for CountingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = sdk::SpanExporter::export(&self.exporter, batch).await;
        let lost = if result.is_ok() { self.refused.swap(0, Relaxed).min(spans) } else { spans };
        self.sent.increment((spans - lost) as u64);
        self.failed.increment(lost as u64);
        self.waiting.fetch_sub(spans, Relaxed);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        sdk::SpanExporter::shutdown_with_timeout(&self.exporter, timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        sdk::SpanExporter::force_flush(&self.exporter)
    }

    fn set_resource(&mut self, resource: &Resource) {
        sdk::SpanExporter::set_resource(&mut self.exporter, resource);
    }
}

/// The counter of one outcome, which is there from the start.
fn outcome(outcome: &'static str) -> Counter {
    at_zero(counter!("user_service_trace_spans_total", "outcome" => outcome))
}
