//! The admin port: metrics, health for probes, and debug pages for loopback peers.
//!
//! It is served on the control runtime, so that it answers when the serving
//! threads do not, and until the very end of a drain. HTTP/1 and HTTP/2 come in
//! on one port, in clear text. Connections are bounded: there are few permits,
//! and each is released soon.
//!
//! **Invariant:** no answer waits for the store, a serving thread or a call. It
//! deliberately serves no user and changes nothing but the log's filter.

mod connection;
mod debug;
mod routes;

use std::{
    future::Future,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use metrics::counter;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};

pub use self::debug::DebugPages;
use self::routes::Routes;
use crate::{
    config::Config,
    listener::{self, Addresses, BindError, Incoming, lingering_close::Closes, policing::PolicedConnections},
    rpc::source::Source,
    service::Health,
    telemetry::Metrics,
    util::{
        counter::at_zero,
        log_throttle::{Admitted, LogThrottle},
    },
};

/// The most open connections. Further ones are closed, and the last eighth is for addresses
/// below their share, so that a probe is answered whatever another peer opens.
const MAX_CONNECTIONS: usize = 128;

/// How often refused connections may be logged.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// How long answers may take to be sent once the port is told to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// A bound admin port before its accept loop runs.
#[derive(Debug)]
pub struct Admin {
    socket: std::net::TcpListener,
    addr: SocketAddr,
}

impl Admin {
    /// Opens the port.
    pub fn bind(config: &Config) -> Result<Self, BindError> {
        let socket = listener::bind("admin_addr", config.admin_addr)?;
        // A port of 0 becomes the one that the system chose.
        let addr = socket.local_addr().unwrap_or(config.admin_addr);
        Ok(Self { socket, addr })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers until `stop`, then ends within two seconds. To be awaited on the
    /// control runtime.
    pub async fn serve(
        self,
        metrics: Metrics,
        health: Health,
        debug: DebugPages,
        stop: impl Future<Output = ()> + Send,
    ) -> std::io::Result<()> {
        let mut incoming = Incoming::new(TcpListener::from_std(self.socket)?, "admin");
        let routes = Routes::new(metrics, health, debug);
        let (stopping, stopped) = watch::channel(());
        let mut connections = JoinSet::new();
        tokio::select! {
            () = accept(&mut incoming, &routes, &stopped, &mut connections) => {}
            () = stop => {}
        }
        drop((incoming, stopping));
        let all_ended = async { while connections.join_next().await.is_some() {} };
        // What has not ended by then is aborted with the set.
        let _ = timeout(STOP_TIMEOUT, all_ended).await;
        Ok(())
    }
}

/// Accepts for ever.
async fn accept(
    incoming: &mut Incoming,
    routes: &Routes,
    stopped: &watch::Receiver<()>,
    connections: &mut JoinSet<()>,
) {
    let closes = Closes::of("admin");
    let policed = PolicedConnections::of("admin");
    let mut addresses = Addresses::new(Arc::new(Semaphore::new(MAX_CONNECTIONS)));
    let refused = at_zero(counter!("user_service_admin_connections_refused_total"));
    let throttle = LogThrottle::new(1, LOG_INTERVAL);
    loop {
        let (stream, peer) = incoming.next().await;
        // Ended ones are removed here, so that the set stays as small as the number of permits.
        while connections.try_join_next().is_some() {}
        let Some(address) = addresses.admit(Source::of(peer.ip())) else {
            refused.increment(1);
            if let Some(Admitted { unlogged }) = throttle.admit(Instant::now()) {
                tracing::warn!(unlogged, "connections to the admin port are refused: too many are open");
            }
            continue;
        };
        let connection =
            connection::serve(stream, routes.of(peer), stopped.clone(), closes.clone(), policed.clone());
        connections.spawn(async move {
            connection.await;
            drop(address);
        });
    }
}
