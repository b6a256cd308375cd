//! Spans to a collector, set up by the standard `OTEL_*` variables.
//!
//! The SDK reads some of them itself: `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`,
//! `OTEL_SPAN_*_LIMIT`, and the exporter's headers and compression. It does so before
//! there is a log, so warnings about these come from here.

use std::{collections::HashMap, path::PathBuf, time::Duration};

use http::{HeaderName, Uri};
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
    variables::Variables,
};
use crate::tls::ClientFiles;

/// Where spans go.
#[derive(Debug)]
pub struct Traces {
    pub provider: SdkTracerProvider,
    pub sampler: Sampler,
}

impl Traces {
    /// `None` where no endpoint is set, or where tracing is switched off.
    pub fn from_env(env: &Variables<'_>) -> Result<Option<Self>, InitError> {
        let Some(endpoint) = endpoint(env).map_err(InitError::Traces)? else { return Ok(None) };
        check_what_the_sdk_reads(env);
        let sampler = Sampler::from_env(env);
        let limits = SpanQueueConfig::from_env(env);
        let no_exporter = |error: &dyn std::fmt::Display| {
            InitError::Traces(format!("the span exporter cannot be set up: {error}"))
        };
        let tls = tls_files(env).config().map_err(|why| no_exporter(&why))?;
        let refused = RejectedSpans::default();
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(
                OtlpClient::new(refused.clone(), limits.timeout, tls).map_err(|error| no_exporter(&error))?,
            )
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint)
            .with_headers(headers(env))
            .build()
            .map_err(|error| no_exporter(&error))?;
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BoundedSpanProcessor::new(exporter, refused, limits))
            // Sampling was decided before a span is built.
            .with_sampler(sdk::Sampler::AlwaysOn)
            .with_resource(resource(env))
            .build();
        Ok(Some(Self { provider, sampler }))
    }

    /// Sends what there is; blocks.
    pub fn shutdown(&self, timeout: Duration) -> OTelSdkResult {
        self.provider.shutdown_with_timeout(timeout)
    }
}

/// The whole URL that spans are posted to. No message repeats it, because it may hold a
/// credential.
fn endpoint(env: &Variables<'_>) -> Result<Option<String>, String> {
    let of_traces = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    let of_all = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let exporters = env.list("OTEL_TRACES_EXPORTER", &["otlp", "none"]).unwrap_or_default();
    if env.is_true("OTEL_SDK_DISABLED") || exporters.contains(&"none") {
        return Ok(None);
    }
    let (key, url) = if let Some(url) = env.text(of_traces) {
        (of_traces, url)
    } else if let Some(url) = env.text(of_all) {
        (of_all, url)
    } else {
        return Ok(None);
    };
    let uri: Option<Uri> = url
        .parse()
        .ok()
        .filter(|uri: &Uri| ["http", "https"].contains(&uri.scheme_str().unwrap_or_default()));
    let Some((uri, authority)) = uri.as_ref().and_then(|uri| Some((uri, uri.authority()?))) else {
        return Err(format!(
            "{key} must be a URL such as http://localhost:4318 or https://collector.example:4318"
        ));
    };
    if authority.as_str().contains('@') {
        return Err(format!(
            "{key} must hold no login; set OTEL_EXPORTER_OTLP_HEADERS instead, such as \
             authorization=Basic%20..."
        ));
    }
    if key == of_traces {
        return Ok(Some(url));
    }
    let path = uri.path().trim_end_matches('/');
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let scheme = uri.scheme_str().unwrap_or("http");
    Ok(Some(format!("{scheme}://{authority}{path}/v1/traces{query}")))
}

/// What a collector over https is checked with, and what it is shown.
fn tls_files(env: &Variables<'_>) -> ClientFiles {
    let file = |what: &str| {
        let names = [format!("OTEL_EXPORTER_OTLP_TRACES_{what}"), format!("OTEL_EXPORTER_OTLP_{what}")];
        names.iter().find_map(|name| env.text(name)).map(PathBuf::from)
    };
    ClientFiles { ca: file("CERTIFICATE"), cert: file("CLIENT_CERTIFICATE"), key: file("CLIENT_KEY") }
}

fn check_what_the_sdk_reads(env: &Variables<'_>) {
    for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
        if let Some(other) = env.text(name).filter(|value| !value.eq_ignore_ascii_case("http/protobuf")) {
            env.ignored(
                name,
                &other,
                "http/protobuf, on the collector's port for it, which is 4318 by default",
            );
        }
    }
    let compressions = ["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"];
    env.one_of(&compressions, &["gzip", "none"]);
    for what in ["ATTRIBUTE", "EVENT", "LINK"] {
        env.number(&[&format!("OTEL_SPAN_{what}_COUNT_LIMIT")], &(0..=u32::MAX.into()));
    }
}

/// The headers to send along. The SDK reads the same variables, but takes an empty
/// variable of traces for a set one.
fn headers(env: &Variables<'_>) -> HashMap<String, String> {
    let names = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];
    let Some((name, list)) = names.iter().find_map(|name| Some((name, env.text(name)?))) else {
        return HashMap::new();
    };
    let mut headers = HashMap::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
            Some((key, value)) if key.parse::<HeaderName>().is_ok() => {
                headers.insert(key.to_owned(), value.to_owned());
            }
            _ => env.warn(format!("a part of {name} is not key=value and is ignored")),
        }
    }
    headers
}

/// Whether calls follow the trace that their caller names. Only W3C's `traceparent` is
/// read. Where the list names other formats alone, no caller is followed.
pub fn follows_callers(env: &Variables<'_>) -> bool {
    const NAME: &str = "OTEL_PROPAGATORS";
    const READ: &str = "tracecontext";
    const KNOWN: [&str; 8] = [READ, "baggage", "none", "b3", "b3multi", "jaeger", "xray", "ottrace"];
    let formats = env.list(NAME, &KNOWN).unwrap_or_default();
    for format in &formats {
        if ![READ, "baggage", "none"].contains(format) {
            env.ignored(NAME, format, "tracecontext, baggage, none");
        }
    }
    formats.is_empty() || (formats.contains(&READ) && !formats.contains(&"none"))
}

fn resource(env: &Variables<'_>) -> Resource {
    let attributes = env.text("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let has = |name: &str| {
        attributes.split(',').any(|pair| pair.split('=').next().is_some_and(|key| key.trim() == name))
    };
    let named = env.text("OTEL_SERVICE_NAME").is_some() || has("service.name");
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
    use crate::telemetry::variables::testing::read;

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");

    fn endpoint_with(vars: &[(&str, &str)]) -> Result<Option<String>, String> {
        read(vars, endpoint).0
    }

    #[test]
    fn spans_go_nowhere_unless_an_endpoint_is_set() {
        assert_eq!(endpoint_with(&[]), Ok(None));
        assert_eq!(endpoint_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), Ok(None));
        assert_eq!(endpoint_with(&[ENDPOINT, ("OTEL_SDK_DISABLED", "True")]), Ok(None));
        assert_eq!(endpoint_with(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
    }

    #[test]
    fn the_general_endpoint_gets_a_path_and_the_one_of_traces_is_whole() {
        assert_eq!(endpoint_with(&[ENDPOINT]), Ok(Some("http://collector:4318/v1/traces".into())));
        let of_traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://other:4318/spans");
        assert_eq!(endpoint_with(&[ENDPOINT, of_traces]), Ok(Some("http://other:4318/spans".into())));
        let secure = [("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318")];
        assert_eq!(endpoint_with(&secure), Ok(Some("https://collector:4318/v1/traces".into())));
        let below = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector/otlp?team=a")];
        assert_eq!(endpoint_with(&below), Ok(Some("http://collector/otlp/v1/traces?team=a".into())));
    }

    #[test]
    fn an_endpoint_that_cannot_be_used_is_refused_and_not_repeated() {
        for (url, remedy) in [
            ("ftp://S3cret.collector:4318", "http://localhost:4318"),
            ("collector:4318/S3cret", "http://localhost:4318"),
            ("S3cret", "http://localhost:4318"),
            ("http://me:S3cret@collector:4318", "OTEL_EXPORTER_OTLP_HEADERS"),
        ] {
            let refused = endpoint_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", url)]).unwrap_err();
            assert!(refused.contains(remedy) && !refused.contains("S3cret"), "{url}: {refused}");
        }
    }

    #[test]
    fn the_files_of_traces_go_before_the_general_ones() {
        let set = [
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "ca"),
            ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "traces-ca"),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "cert"),
            ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", ""),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "key"),
        ];
        let files =
            ClientFiles { ca: Some("traces-ca".into()), cert: Some("cert".into()), key: Some("key".into()) };
        assert_eq!(read(&set, tls_files).0, files);
    }

    #[test]
    fn what_is_not_done_is_ignored_with_a_warning() {
        for (set, warnings) in [
            (&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")][..], 1),
            (&[("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "HTTP/protobuf")], 0),
            (&[("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd")], 1),
            (
                &[
                    ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "zstd"),
                    ("OTEL_EXPORTER_OTLP_COMPRESSION", "GZIP"),
                ],
                1,
            ),
            (&[("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "-1"), ("OTEL_SPAN_LINK_COUNT_LIMIT", "5")], 1),
        ] {
            let ((), said) = read(set, check_what_the_sdk_reads);
            assert_eq!(said.len(), warnings, "{set:?}: {said:?}");
        }
        let exporter = [ENDPOINT, ("OTEL_TRACES_EXPORTER", "zipkin")];
        let (endpoint, said) = read(&exporter, endpoint);
        assert_eq!((endpoint, said.len()), (endpoint_with(&[ENDPOINT]), 1), "the default is otlp");
    }

    #[test]
    fn the_headers_of_traces_go_before_the_general_ones_unless_they_are_empty() {
        let general = ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=S3cret, a=b=c");
        let names = |set: &[(&str, &str)]| {
            let (headers, said) = read(set, headers);
            let mut names: Vec<_> =
                headers.into_iter().map(|(key, value)| format!("{key}:{value}")).collect();
            names.sort();
            (names, said)
        };
        let of_all = ["a:b=c".to_owned(), "authorization:S3cret".to_owned()];
        assert_eq!(names(&[general]), (of_all.to_vec(), Vec::new()));
        let of_traces = "OTEL_EXPORTER_OTLP_TRACES_HEADERS";
        assert_eq!(names(&[general, (of_traces, "")]).0, of_all);
        assert_eq!(names(&[general, (of_traces, "x=y")]).0, ["x:y"]);
        let (none, said) = names(&[(of_traces, "Bearer S3cret")]);
        assert!(none.is_empty() && said.len() == 1 && !said[0].contains("S3cret"), "{said:?}");
    }

    #[test]
    fn callers_are_followed_by_trace_context_alone() {
        for (formats, follows, warnings) in [
            ("", true, 0),
            ("tracecontext", true, 0),
            ("TraceContext,baggage", true, 0),
            ("b3, tracecontext,baggage", true, 1),
            ("none", false, 0),
            ("tracecontext,none", false, 0),
            ("baggage", false, 0),
            ("b3", false, 1),
            ("tracecontxt", true, 1),
        ] {
            let (follow, said) = read(&[("OTEL_PROPAGATORS", formats)], follows_callers);
            assert_eq!((follow, said.len()), (follows, warnings), "{formats:?}: {said:?}");
        }
    }

    #[test]
    fn attributes_that_only_end_like_ours_leave_ours_as_they_are() {
        let name = |attributes: &str| {
            let (resource, _) = read(&[("OTEL_RESOURCE_ATTRIBUTES", attributes)], resource);
            let has_id = resource.get(&"service.instance.id".into()).is_some();
            (resource.get(&"service.name".into()).map(|name| name.to_string()), has_id)
        };
        // The process itself has no such variable: the SDK reads the names there.
        assert_eq!(name("peer.service.name=a,my.service.instance.id=b"), (Some("user-service".into()), true));
        assert!(!name("a=b, service.instance.id=ns.pod.app").1);
    }
}
