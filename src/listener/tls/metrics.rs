//! The metrics of TLS.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use metrics::{Counter, Gauge, counter, gauge};

use super::files::Validity;
use crate::util::log_throttle::{Admitted, LogThrottle};

/// How often a failed handshake may be logged.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// How a handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeOutcome {
    Ok,
    /// The client does not speak TLS.
    NotTls,
    /// No version, cipher suite or group that both have.
    Incompatible,
    /// The client asks for neither `h2` nor `http/1.1`.
    Alpn,
    /// The client has ended the handshake with an alert: it does not trust the server.
    Alert,
    /// The client has shown no certificate where one is required.
    NoCertificate,
    /// The client's certificate has expired or is not valid yet.
    CertificateExpired,
    /// No authority of the file vouches for the client's certificate.
    CertificateUntrusted,
    /// The client's certificate identifies nobody, is for another purpose, or is malformed.
    CertificateUnusable,
    /// The client broke TLS.
    Protocol,
    /// The client closed the connection.
    Closed,
    /// It took longer than `handshake_timeout_ms`.
    Timeout,
    /// It made room for a newer one.
    Evicted,
}

impl HandshakeOutcome {
    pub const ALL: [Self; 13] = [
        Self::Ok,
        Self::NotTls,
        Self::Incompatible,
        Self::Alpn,
        Self::Alert,
        Self::NoCertificate,
        Self::CertificateExpired,
        Self::CertificateUntrusted,
        Self::CertificateUnusable,
        Self::Protocol,
        Self::Closed,
        Self::Timeout,
        Self::Evicted,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotTls => "not_tls",
            Self::Incompatible => "incompatible",
            Self::Alpn => "alpn",
            Self::Alert => "alert",
            Self::NoCertificate => "no_certificate",
            Self::CertificateExpired => "certificate_expired",
            Self::CertificateUntrusted => "certificate_untrusted",
            Self::CertificateUnusable => "certificate_unusable",
            Self::Protocol => "protocol",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::Evicted => "evicted",
        }
    }
}

/// The handles of every metric of TLS. Clones share the throttle of the log.
#[derive(Clone)]
pub struct TlsMetrics {
    handshakes: [Counter; HandshakeOutcome::ALL.len()],
    not_before: Gauge,
    not_after: Gauge,
    accepted: Counter,
    refused: Counter,
    refused_now: Gauge,
    throttle: Arc<LogThrottle>,
}

impl std::fmt::Debug for TlsMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsMetrics").finish_non_exhaustive()
    }
}

impl TlsMetrics {
    pub fn new() -> Self {
        let reloads = |outcome| counter!("user_service_tls_reloads_total", "outcome" => outcome);
        let metrics = Self {
            handshakes: HandshakeOutcome::ALL
                .map(|outcome| counter!("grpc_server_tls_handshakes_total", "outcome" => outcome.name())),
            not_before: gauge!("user_service_tls_certificate_not_before_timestamp_seconds"),
            not_after: gauge!("user_service_tls_certificate_not_after_timestamp_seconds"),
            accepted: reloads("live"),
            refused: reloads("refused"),
            refused_now: gauge!("user_service_tls_files_refused"),
            throttle: Arc::new(LogThrottle::new(1, LOG_INTERVAL)),
        };
        metrics.refused_now.set(0);
        metrics
    }

    /// Counts a handshake. Failures are logged by their reason only, and seldom.
    pub fn handshake(&self, outcome: HandshakeOutcome) {
        self.handshakes[outcome as usize].increment(1);
        if outcome != HandshakeOutcome::Ok
            && let Some(Admitted { unlogged }) = self.throttle.admit(Instant::now())
        {
            tracing::info!(outcome = outcome.name(), unlogged, "a TLS handshake failed");
        }
    }

    /// A certificate went live.
    pub fn live(&self, validity: Validity) {
        let seconds =
            |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        self.not_before.set(seconds(validity.not_before));
        self.not_after.set(seconds(validity.not_after));
    }

    /// A new set of files went live.
    pub fn reloaded(&self, validity: Validity) {
        self.live(validity);
        self.accepted.increment(1);
        self.refused_now.set(0);
    }

    /// The files are those of the live set.
    pub fn unchanged(&self) {
        self.refused_now.set(0);
    }

    /// A new set of files was refused.
    pub fn refuse(&self) {
        self.refused.increment(1);
        self.refused_now.set(1);
    }
}
