//! The metrics of connections.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::{lingering_close::Closes, policing::PolicedConnections};

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer closed it.
    Client,
    Age,
    Idle,
    Handshake,
    /// The TLS handshake failed, and the peer was told why.
    Tls,
    /// The peer closed it during a drain.
    Drain,
    /// It was cut at the end of a drain.
    DrainCut,
    /// A keepalive ping was not answered, or nothing was taken of what was to be written.
    Keepalive,
    /// The peer broke HTTP, or one of its limits.
    Error,
    /// The peer did not read its answers, and the process had many that waited.
    Unread,
    /// The frames of the peer cost too much.
    Policed,
}

impl CloseReason {
    const ALL: [Self; 11] = [
        Self::Client,
        Self::Age,
        Self::Idle,
        Self::Handshake,
        Self::Tls,
        Self::Drain,
        Self::DrainCut,
        Self::Keepalive,
        Self::Error,
        Self::Unread,
        Self::Policed,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Age => "age",
            Self::Idle => "idle",
            Self::Handshake => "handshake",
            Self::Tls => "tls",
            Self::Drain => "drain",
            Self::DrainCut => "drain_cut",
            Self::Keepalive => "keepalive",
            Self::Error => "error",
            Self::Unread => "unread",
            Self::Policed => "policed",
        }
    }
}

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    pub const ALL: [Self; 2] = [Self::Http1, Self::Http2];

    pub fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http/1",
            Self::Http2 => "http/2",
        }
    }
}

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionPhase {
    Handshake,
    Open,
    /// Told to go, and still here.
    Closing,
}

impl ConnectionPhase {
    pub const ALL: [Self; 3] = [Self::Handshake, Self::Open, Self::Closing];

    pub fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Open => "open",
            Self::Closing => "closing",
        }
    }

    pub fn of(handshake_done: bool, ending: Option<CloseReason>) -> Self {
        match (handshake_done, ending) {
            (false, _) => Self::Handshake,
            (true, None) => Self::Open,
            (true, Some(_)) => Self::Closing,
        }
    }
}

/// The handles of every metric of the listener.
#[derive(Clone)]
pub struct ListenerMetrics {
    states: [Gauge; ConnectionPhase::ALL.len()],
    protocols: [Gauge; Protocol::ALL.len()],
    closed: [Counter; CloseReason::ALL.len()],
    pub accepted: Counter,
    pub refused: Counter,
    pub calls_cut: Counter,
    pub loop_lag: Histogram,
    pub closes: Closes,
    pub policed: PolicedConnections,
}

impl ListenerMetrics {
    pub fn new(max_connections: usize) -> Self {
        gauge!("grpc_server_connections_limit")
            .set(f64::from(u32::try_from(max_connections).unwrap_or(u32::MAX)));
        Self {
            states: ConnectionPhase::ALL
                .map(|state| gauge!("grpc_server_connections", "state" => state.name())),
            protocols: Protocol::ALL
                .map(|protocol| gauge!("user_service_open_connections", "protocol" => protocol.name())),
            closed: CloseReason::ALL
                .map(|reason| counter!("grpc_server_connections_closed_total", "reason" => reason.name())),
            accepted: counter!("grpc_server_connections_accepted_total"),
            refused: counter!("grpc_server_connections_refused_total"),
            calls_cut: counter!("grpc_server_calls_cut_total"),
            loop_lag: histogram!("user_service_event_loop_lag_seconds"),
            closes: Closes::of("grpc"),
            policed: PolicedConnections::of("grpc"),
        }
    }

    pub fn entered(&self, state: ConnectionPhase) {
        self.states[state as usize].increment(1);
    }

    pub fn left(&self, state: ConnectionPhase) {
        self.states[state as usize].decrement(1);
    }

    pub fn speaks(&self, protocol: Protocol) {
        self.protocols[protocol as usize].increment(1);
    }

    pub fn spoke(&self, protocol: Protocol) {
        self.protocols[protocol as usize].decrement(1);
    }

    pub fn closed(&self, reason: CloseReason) {
        self.closed[reason as usize].increment(1);
    }
}
