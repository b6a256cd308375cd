//! TLS on the port of the API: TLS 1.3 and 1.2 with ALPN `h2` or
//! `http/1.1`, and client certificates.
//!
//! **Invariant:** a handshake sees one whole set of files: certificate, key and
//! authorities go live together, after they were checked together.
//!
//! Sessions are not resumed. A ticket that every replica accepts needs a key that all of
//! them share and rotate, and a resumed session would skip the check of the client's
//! certificate against authorities that have changed since. A gRPC connection lives for
//! half an hour, so its one full handshake costs little.

mod client_certificate;
mod files;
mod handshake;
mod metrics;
mod reload;
#[cfg(test)]
mod testing;
mod transport;
mod turns;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;

use self::{
    files::{Checked, TlsFiles},
    metrics::TlsMetrics,
};
pub use self::{
    handshake::{Handshakes, Refused},
    transport::Transport,
};
use crate::config::Config;

/// Why the port cannot have TLS.
#[derive(Debug, thiserror::Error)]
#[error("TLS cannot be set up: {0}")]
pub struct TlsError(String);

/// The TLS of the port. Clones share what is live.
#[derive(Clone, Debug)]
pub struct Tls {
    files: TlsFiles,
    reload_interval: Duration,
    live: Arc<RwLock<Live>>,
    metrics: TlsMetrics,
}

#[derive(Debug)]
struct Live {
    config: Arc<ServerConfig>,
    fingerprint: files::Fingerprint,
}

impl Tls {
    /// Reads and checks the files; `None` where the configuration names none.
    ///
    /// # Errors
    /// Names the file and why it will not do.
    pub fn load(config: &Config) -> Result<Option<Self>, TlsError> {
        let Some(files) = TlsFiles::from_config(config) else { return Ok(None) };
        let read = files.read().map_err(TlsError)?;
        let Checked { config: server, validity } = files.check(&read, SystemTime::now()).map_err(TlsError)?;
        let metrics = TlsMetrics::new();
        metrics.live(validity);
        let live = Live { config: server, fingerprint: read.fingerprint() };
        Ok(Some(Self {
            files,
            reload_interval: config.tls_reload_interval,
            live: Arc::new(RwLock::new(live)),
            metrics,
        }))
    }

    /// What the next handshake is made with.
    fn acceptor(&self) -> TlsAcceptor {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&live.config))
    }

    fn fingerprint(&self) -> files::Fingerprint {
        self.live.read().unwrap_or_else(PoisonError::into_inner).fingerprint
    }

    fn replace(&self, live: Live) {
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = live;
    }
}
