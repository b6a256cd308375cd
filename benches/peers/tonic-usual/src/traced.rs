//! Spans for OpenTelemetry, and a JSON log of warnings.

use std::{error::Error, fs::OpenOptions, sync::Mutex};

use http::Request;
use opentelemetry::{global, trace::TracerProvider};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracerProvider},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

/// Nothing listens there: what spans cost the calls, and no collector's work.
const ENDPOINT: &str = "http://127.0.0.1:9";
const RATIO: f64 = 0.01;
/// The exporter's complaints about the closed port, and its own calls.
const QUIET: &str =
    "opentelemetry=off,opentelemetry_sdk=off,opentelemetry_otlp=off,h2=off,hyper=off,tonic=off";

pub fn install() -> Result<(), Box<dyn Error>> {
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(ENDPOINT).build()?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(RATIO))))
        .with_resource(Resource::builder().with_service_name("user").build())
        .build();
    let tracer = provider.tracer("user");
    global::set_tracer_provider(provider);
    global::set_text_map_propagator(TraceContextPropagator::new());

    let null = OpenOptions::new().write(true).open("/dev/null")?;
    let spans = tracing_opentelemetry::layer().with_tracer(tracer);
    let lines = tracing_subscriber::fmt::layer().json().with_writer(Mutex::new(null));
    tracing_subscriber::registry()
        .with(spans.with_filter(EnvFilter::new(format!("info,{QUIET}"))))
        .with(lines.with_filter(EnvFilter::new(format!("warn,{QUIET}"))))
        .init();
    Ok(())
}

/// The span of a call, a child of the caller's.
pub fn span<B>(request: &Request<B>) -> Span {
    let path = request.uri().path();
    let (service, method) = crate::split(path);
    let span = tracing::info_span!(
        "grpc",
        otel.name = %path.trim_start_matches('/'),
        otel.kind = "server",
        rpc.system = "grpc",
        rpc.service = service,
        rpc.method = method,
    );
    let parent = global::get_text_map_propagator(|p| p.extract(&HeaderExtractor(request.headers())));
    // Fails where no OpenTelemetry layer is installed; there is one.
    let _ = span.set_parent(parent);
    span
}
