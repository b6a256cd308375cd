//! The metrics of calls: under go-grpc-prometheus' names, OpenTelemetry's, or both,
//! from one recording point.
//!
//! Every handle is resolved once, so that a call costs no lookup. Methods that do
//! not exist share one set of series: no caller can mint another.

use std::{sync::OnceLock, time::Duration};

use metrics::{Counter, Gauge, Histogram, SharedString, counter, gauge, histogram};
use tonic::Code;

use crate::{
    config::MetricNames,
    rpc::{
        codes::{self, CODES},
        methods::{METHODS, Method, MethodKind},
        protocol::Protocol,
    },
    util::counter::at_zero,
};

/// The series of every method.
#[derive(Debug)]
pub struct CallMetrics {
    methods: [MethodMetrics; METHODS.len()],
    unknown: MethodMetrics,
    /// By protocol.
    protocols: [Counter; Protocol::ALL.len()],
}

impl CallMetrics {
    /// Resolves every handle; the recorder must be installed by then.
    pub fn new(families: MetricNames) -> Self {
        let protocols = Protocol::ALL.map(|protocol| {
            at_zero(counter!("user_service_protocol_calls_total", "protocol" => protocol.name()))
        });
        Self {
            protocols,
            methods: std::array::from_fn(|index| MethodMetrics::new(Names::of(&METHODS[index]), families)),
            unknown: MethodMetrics::new(Names::UNKNOWN, families),
        }
    }

    /// A call in this protocol has begun.
    pub fn called(&self, protocol: Protocol) {
        self.protocols[protocol as usize].increment(1);
    }

    pub fn of(&self, method: Option<&Method>) -> &MethodMetrics {
        method.and_then(|method| self.methods.get(method.index())).unwrap_or(&self.unknown)
    }
}

/// How a method is called in labels.
#[derive(Clone, Copy, Debug)]
struct Names {
    kind: &'static str,
    service: &'static str,
    method: &'static str,
    otel: &'static str,
}

impl Names {
    const UNKNOWN: Self = Self { kind: "unary", service: "unknown", method: "unknown", otel: "_OTHER" };

    fn of(method: &'static Method) -> Self {
        let kind = match method.kind {
            MethodKind::Unary => "unary",
            MethodKind::ServerStreaming => "server_stream",
            MethodKind::BidiStreaming => "bidi_stream",
        };
        Self { kind, service: method.service(), method: method.name(), otel: method.full_name() }
    }

    fn labels(self) -> [(&'static str, &'static str); 3] {
        [("grpc_type", self.kind), ("grpc_service", self.service), ("grpc_method", self.method)]
    }
}

/// The series of one method.
#[derive(Debug)]
pub struct MethodMetrics {
    names: Names,
    families: MetricNames,
    received: MessageCounter,
    sent: MessageCounter,
    started: Counter,
    in_flight: Gauge,
    handled: [Counter; CODES],
    handling: Histogram,
    /// Made when a code is first met: seventeen empty histograms a method would be most of a scrape.
    durations: [OnceLock<Histogram>; CODES],
    /// The same of calls in Connect, which is another RPC system to OpenTelemetry.
    connect_durations: [OnceLock<Histogram>; CODES],
}

impl MethodMetrics {
    fn new(names: Names, families: MetricNames) -> Self {
        let labels = names.labels();
        let counter = |name, labels: &[(&'static str, &'static str)]| {
            if families.has_grpc_prometheus() { at_zero(counter!(name, labels)) } else { Counter::noop() }
        };
        Self {
            names,
            families,
            received: MessageCounter::new(counter("grpc_server_msg_received_total", &labels)),
            sent: MessageCounter::new(counter("grpc_server_msg_sent_total", &labels)),
            started: counter("grpc_server_started_total", &labels),
            in_flight: gauge!("grpc_server_calls_in_flight", &labels),
            handled: std::array::from_fn(|index| {
                let code = codes::prometheus_name(codes::at(index));
                let [kind, service, method] = labels;
                counter("grpc_server_handled_total", &[kind, service, method, ("grpc_code", code)])
            }),
            handling: if families.has_grpc_prometheus() {
                histogram!("grpc_server_handling_seconds", &labels)
            } else {
                Histogram::noop()
            },
            durations: std::array::from_fn(|_| OnceLock::new()),
            connect_durations: std::array::from_fn(|_| OnceLock::new()),
        }
    }

    pub fn started(&self) {
        self.started.increment(1);
        self.in_flight.increment(1.0);
    }

    /// A message of `len` bytes was read to its end.
    pub fn received(&self, len: u32) {
        self.received.passed(len, || histogram!("grpc_server_msg_received_bytes", &self.names.labels()));
    }

    /// A message of `len` bytes was sent.
    pub fn sent(&self, len: u32) {
        self.sent.passed(len, || histogram!("grpc_server_msg_sent_bytes", &self.names.labels()));
    }

    /// The one recording point of a call's end.
    pub fn finished(&self, protocol: Protocol, code: Code, took: Duration) {
        self.handled[codes::index(code)].increment(1);
        // Failures are as a rule much faster or much slower, and would hide how long an answer takes.
        if code == Code::Ok {
            self.handling.record(took);
        }
        let durations = match protocol {
            Protocol::Grpc | Protocol::GrpcWeb => &self.durations,
            Protocol::Connect => &self.connect_durations,
        };
        durations[codes::index(code)].get_or_init(|| self.duration(protocol, code)).record(took);
        // Last, so that a call which is no longer in flight has been counted.
        self.in_flight.decrement(1.0);
    }

    fn duration(&self, protocol: Protocol, code: Code) -> Histogram {
        if !self.families.has_opentelemetry() {
            return Histogram::noop();
        }
        let code_name = codes::otel_name(code);
        let mut labels = vec![
            ("rpc_system_name", SharedString::const_str(protocol.otel_system())),
            ("rpc_method", self.names.otel.into()),
            ("rpc_response_status_code", code_name.into()),
        ];
        if codes::fails_span(code) {
            labels.push(("error_type", code_name.into()));
        }
        histogram!("rpc_server_call_duration_seconds", &labels)
    }
}

/// Messages that went one way.
#[derive(Debug)]
struct MessageCounter {
    count: Counter,
    /// Made with the first, so that a scrape holds no methods without calls.
    bytes: OnceLock<Histogram>,
}

impl MessageCounter {
    fn new(count: Counter) -> Self {
        Self { count, bytes: OnceLock::new() }
    }

    fn passed(&self, len: u32, bytes: impl FnOnce() -> Histogram) {
        self.count.increment(1);
        self.bytes.get_or_init(bytes).record(len);
    }
}
