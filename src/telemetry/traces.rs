//! Spans to a collector, set up by the standard `OTEL_*` variables.
//!
//! The SDK itself reads those that only concern it: `OTEL_SERVICE_NAME`,
//! `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SPAN_*_LIMIT`, and the exporter's headers and
//! compression.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{self as sdk, SdkTracerProvider},
};
use uuid::Uuid;

use super::{
    InitError, Sampler,
    otlp_client::{OtlpClient, RejectedSpans},
    span_queue::BoundedSpanProcessor,
    span_queue_config::SpanQueueConfig,
};

/// Where spans go.
#[derive(Debug)]
pub struct Traces {
    pub provider: SdkTracerProvider,
    pub sampler: Sampler,
}

impl Traces {
    /// `None` where no endpoint is set, or where tracing is switched off.
    pub fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, InitError> {
        // A variable that is set to nothing is as good as not set.
        let env = |key: &str| env(key).filter(|value| !value.is_empty());
        let Some(endpoint) = endpoint(&env).map_err(InitError::Traces)? else { return Ok(None) };
        propagators(&env).map_err(InitError::Traces)?;
        let sampler = Sampler::from_env(&env).map_err(InitError::Traces)?;
        let limits = SpanQueueConfig::from_env(&env).map_err(InitError::Traces)?;
        let no_exporter = |error: &dyn std::fmt::Display| {
            InitError::Traces(format!("the span exporter cannot be set up: {error}"))
        };
        let refused = RejectedSpans::default();
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(
                OtlpClient::new(refused.clone(), limits.timeout).map_err(|error| no_exporter(&error))?,
            )
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint)
            .build()
            .map_err(|error| no_exporter(&error))?;
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BoundedSpanProcessor::new(exporter, refused, limits))
            // Sampling was decided before a span is built.
            .with_sampler(sdk::Sampler::AlwaysOn)
            .with_resource(resource(&env))
            .build();
        Ok(Some(Self { provider, sampler }))
    }

    /// Sends what there is; blocks.
    pub fn shutdown(&self, timeout: Duration) -> OTelSdkResult {
        self.provider.shutdown_with_timeout(timeout)
    }
}

/// The whole URL that spans are posted to.
fn endpoint(env: &dyn Fn(&str) -> Option<String>) -> Result<Option<String>, String> {
    if env("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    match env("OTEL_TRACES_EXPORTER").as_deref() {
        None | Some("otlp") => {}
        Some("none") => return Ok(None),
        Some(other) => return Err(format!("OTEL_TRACES_EXPORTER is {other:?}; it must be otlp or none")),
    }
    let of_traces = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    let of_all = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let (key, url, endpoint) = if let Some(url) = env(of_traces) {
        (of_traces, url.clone(), url)
    } else if let Some(url) = env(of_all) {
        let endpoint = format!("{}/v1/traces", url.trim_end_matches('/'));
        (of_all, url, endpoint)
    } else {
        return Ok(None);
    };
    protocol(env)?;
    compression(env)?;
    let is_plain = endpoint.parse::<http::Uri>().is_ok_and(|uri| uri.scheme_str() == Some("http"));
    if !is_plain {
        return Err(format!(
            "{key} is {url:?}; it must be a URL such as http://localhost:4318 \
             (for a collector over https put one beside this service and let it forward)"
        ));
    }
    Ok(Some(endpoint))
}

fn protocol(env: &dyn Fn(&str) -> Option<String>) -> Result<(), String> {
    for key in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
        match env(key).as_deref() {
            None => {}
            Some("http/protobuf") => return Ok(()),
            Some(other) => {
                return Err(format!(
                    "{key} is {other:?}; spans are sent as http/protobuf only: set it to that or leave it \
                     out, and let the endpoint be the collector's port for it, as a rule 4318"
                ));
            }
        }
    }
    Ok(())
}

/// The SDK packs as these say, and passes over what it does not know.
fn compression(env: &dyn Fn(&str) -> Option<String>) -> Result<(), String> {
    for key in ["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"] {
        if let Some(how) = env(key).filter(|how| !["none", "gzip"].contains(&how.as_str())) {
            return Err(format!("{key} is {how:?}; it must be gzip or none"));
        }
    }
    Ok(())
}

/// Of the formats in which callers may name their trace one is read.
fn propagators(env: &dyn Fn(&str) -> Option<String>) -> Result<(), String> {
    let Some(formats) = env("OTEL_PROPAGATORS") else { return Ok(()) };
    if formats.split(',').any(|format| format.trim() == "tracecontext") {
        return Ok(());
    }
    Err(format!(
        "OTEL_PROPAGATORS is {formats:?}; callers are followed by W3C's traceparent alone: leave \
         tracecontext in the list, or do not set it"
    ))
}

fn resource(env: &dyn Fn(&str) -> Option<String>) -> Resource {
    let attributes = env("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let has = |name: &str| {
        attributes.split(',').any(|pair| pair.split('=').next().is_some_and(|key| key.trim() == name))
    };
    let named = env("OTEL_SERVICE_NAME").is_some() || has("service.name");
    let mut resource =
        Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if !has("service.instance.id") {
        // Kubernetes' pods are told theirs; elsewhere processes must still be told apart.
        resource = resource.with_attribute(KeyValue::new("service.instance.id", Uuid::new_v4().to_string()));
    }
    if !named {
        resource = resource.with_service_name("user-service");
    }
    resource.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint_with(vars: &[(&str, &str)]) -> Result<Option<String>, String> {
        endpoint(&|key| vars.iter().find(|(name, _)| *name == key).map(|(_, value)| (*value).to_owned()))
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");

    #[test]
    fn spans_go_nowhere_unless_an_endpoint_is_set() {
        assert_eq!(endpoint_with(&[]), Ok(None));
        assert_eq!(endpoint_with(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]), Ok(None));
        assert_eq!(endpoint_with(&[ENDPOINT, ("OTEL_SDK_DISABLED", "True")]), Ok(None));
        assert_eq!(endpoint_with(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
    }

    #[test]
    fn the_general_endpoint_gets_a_path_and_the_one_of_traces_is_whole() {
        assert_eq!(endpoint_with(&[ENDPOINT]), Ok(Some("http://collector:4318/v1/traces".into())));
        let of_traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://other:4318/spans");
        assert_eq!(endpoint_with(&[ENDPOINT, of_traces]), Ok(Some("http://other:4318/spans".into())));
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_what_to_set() {
        let grpc = endpoint_with(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).unwrap_err();
        assert!(grpc.contains("http/protobuf") && grpc.contains("4318"), "{grpc}");
        let https = endpoint_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318")]).unwrap_err();
        assert!(https.contains("http://localhost:4318"), "{https}");
        assert!(endpoint_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318")]).is_err());
        assert!(endpoint_with(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "zipkin")]).is_err());
        let zstd = endpoint_with(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd")]).unwrap_err();
        assert!(zstd.contains("gzip or none"), "{zstd}");
    }

    #[test]
    fn a_format_that_is_not_read_is_refused_where_it_is_the_only_one() {
        let with = |formats: &'static str| propagators(&|_| Some(formats.into()));
        assert_eq!(propagators(&|_| None), Ok(()));
        assert_eq!(with("b3, tracecontext,baggage"), Ok(()));
        assert!(with("b3").unwrap_err().contains("tracecontext"));
        assert!(with("none").is_err());
    }

    #[test]
    fn attributes_that_only_end_like_ours_leave_ours_as_they_are() {
        let name = |attributes: &'static str| {
            let resource = resource(&|key| (key == "OTEL_RESOURCE_ATTRIBUTES").then(|| attributes.into()));
            let has_id = resource.get(&"service.instance.id".into()).is_some();
            (resource.get(&"service.name".into()).map(|name| name.to_string()), has_id)
        };
        // The process itself has no such variable: what is named there is left to the SDK.
        assert_eq!(name("peer.service.name=a,my.service.instance.id=b"), (Some("user-service".into()), true));
        assert!(!name("a=b, service.instance.id=ns.pod.app").1);
    }

    #[test]
    fn the_protocol_of_traces_goes_before_the_general_one() {
        let general = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        let of_traces = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf");
        assert!(endpoint_with(&[ENDPOINT, general, of_traces]).is_ok());
    }
}
