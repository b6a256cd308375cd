//! A span for a call, where it is sampled.
//!
//! Whether it is sampled is decided from the caller's `traceparent` before
//! anything is built: a span costs more than all the other layers together.

use http::{HeaderMap, HeaderValue};
use opentelemetry::{
    Context, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, Status, TraceContextExt, TraceState},
};
use tonic::Code;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::{
    rpc::{codes, headers::TRACEPARENT, protocol::Protocol},
    telemetry::{SPAN_TARGET, TraceConfig},
};

/// The trace that a call is part of, and its span where it has one.
#[derive(Debug)]
pub struct Trace {
    /// For the log, to find the trace by.
    pub id: TraceId,
    /// Of the call's own span, which only a sampled call has.
    pub span_id: Option<SpanId>,
    pub span: Option<Span>,
}

impl Trace {
    /// Reads the caller's trace context and decides; without a sampler spans go
    /// nowhere, so there are none. `None` where the caller names no trace and none
    /// is begun.
    pub fn start(
        headers: &HeaderMap,
        method: &'static str,
        protocol: Protocol,
        config: TraceConfig,
    ) -> Option<Self> {
        let parent = if config.follows_callers { parent(headers) } else { None };
        let caller = parent.as_ref().map(|parent| (parent.trace_id(), parent.is_sampled()));
        if !config.sampler.is_some_and(|sampler| sampler.samples(caller)) {
            return caller.map(|(id, _)| Self { id, span_id: None, span: None });
        }
        let span = tracing::info_span!(
            target: SPAN_TARGET,
            parent: None,
            "call",
            otel.name = method,
            otel.kind = "server",
            rpc.system.name = protocol.otel_system(),
            user_service.protocol = protocol.name(),
            rpc.method = method,
        );
        if let Some(parent) = parent {
            // Only a span that has begun refuses a parent.
            let _ = span.set_parent(Context::new().with_remote_span_context(parent));
        }
        let made = span.context().span().span_context().clone();
        Some(Self { id: made.trace_id(), span_id: Some(made.span_id()), span: Some(span) })
    }

    /// Ends the span, if any.
    pub fn finish(&mut self, code: Code) {
        let Some(span) = self.span.take() else { return };
        let name = codes::otel_name(code);
        span.set_attribute("rpc.response.status_code", name);
        if codes::fails_span(code) {
            span.set_attribute("error.type", name);
            span.set_status(Status::error(""));
        }
    }
}

/// The span that the caller names, as W3C Trace Context spells it.
fn parent(headers: &HeaderMap) -> Option<SpanContext> {
    let mut values = headers.get_all(&TRACEPARENT).iter();
    // Two of them cannot both be right.
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (trace, span, flags) = parse(value)?;
    let state = headers
        .get("tracestate")
        .and_then(|state| state.to_str().ok()?.parse::<TraceState>().ok())
        .unwrap_or_default();
    Some(SpanContext::new(trace, span, flags, true, state))
}

/// Reads `VERSION-TRACE-SPAN-FLAGS`; a later version may have more after it. The SDK's
/// propagator is laxer (docs/decisions/0011).
pub fn parse(value: &HeaderValue) -> Option<(TraceId, SpanId, TraceFlags)> {
    let value = value.to_str().ok()?;
    let mut parts = value.splitn(5, '-');
    let version = hex(parts.next()?, 2)?;
    let trace = parts.next().filter(|part| part.len() == 32)?;
    let trace = u128::from(hex(&trace[..16], 16)?) << 64 | u128::from(hex(&trace[16..], 16)?);
    let span = hex(parts.next()?, 16)?;
    let flags = hex(parts.next()?, 2)?;
    let more = parts.next().is_some();
    if version == 0xff || (version == 0 && more) || trace == 0 || span == 0 {
        return None;
    }
    // Only the flag that says "sampled" is known here.
    let sampled = if flags & 1 == 1 { TraceFlags::SAMPLED } else { TraceFlags::default() };
    Some((TraceId::from(trace), SpanId::from(span), sampled))
}

/// A number of exactly so many hexadecimal digits, in lower case.
fn hex(digits: &str, len: usize) -> Option<u64> {
    let plain = digits.len() == len && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if plain { u64::from_str_radix(digits, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn parsed(value: &str) -> Option<(TraceId, SpanId, TraceFlags)> {
        parse(&HeaderValue::from_str(value).unwrap())
    }

    #[test]
    fn a_trace_parent_is_read_as_the_recommendation_says() {
        let (trace, span, flags) = parsed(&format!("00-{TRACE}-00f067aa0ba902b7-01")).unwrap();
        assert_eq!(trace.to_string(), TRACE);
        assert_eq!(span.to_string(), "00f067aa0ba902b7");
        assert_eq!(flags, TraceFlags::SAMPLED);
        assert_eq!(parsed(&format!("00-{TRACE}-00f067aa0ba902b7-02")).unwrap().2, TraceFlags::default());
        assert!(parsed(&format!("cc-{TRACE}-00f067aa0ba902b7-01-more-to-come")).is_some());
    }

    #[test]
    fn anything_else_is_as_if_it_were_not_there() {
        for value in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473+-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e47-00f067aa0ba902b7-01",
        ] {
            assert_eq!(parsed(value), None, "{value:?}");
        }
        let mut headers = HeaderMap::new();
        let good = HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        headers.append("traceparent", good.clone());
        assert!(parent(&headers).is_some());
        headers.append("traceparent", good);
        assert!(parent(&headers).is_none(), "two of them");
    }
}
