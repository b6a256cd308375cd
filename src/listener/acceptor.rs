//! Accepting connections, and distributing them among the serving threads.

use std::{
    io,
    net::{IpAddr, TcpStream},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use metrics::{Counter, counter};
use tokio::{
    select,
    sync::{Semaphore, oneshot},
};

use super::{
    addresses::Addresses,
    incoming::Incoming,
    lingering_close::bound_unsent,
    metrics::ListenerMetrics,
    serving_thread::{Accepted, ConnectionPermit, SocketSender},
};
use crate::{
    rpc::source::Source,
    util::{
        counter::at_zero,
        log_throttle::{Admitted, LogThrottle},
    },
};

/// The most connections taken from the kernel's queue when accepting ends.
const MAX_SWEPT_CONNECTIONS: usize = 4_096;

/// How often refused connections may be logged.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The accept loop.
pub struct Acceptor {
    pub incoming: Incoming,
    pub dispatcher: Dispatcher,
}

/// Where accepted connections go.
pub struct Dispatcher {
    threads: Vec<SocketSender>,
    /// The most connections of one address.
    max_per_address: usize,
    /// Connections that were refused for it.
    over_quota: Counter,
    metrics: Arc<ListenerMetrics>,
    /// One for each line, so that none keeps another from being written.
    full_log: LogThrottle,
    over_quota_log: LogThrottle,
    thread_log: LogThrottle,
    addresses: Addresses,
}

impl Acceptor {
    /// Accepts until told to stop, then closes the port.
    pub async fn run(self, mut stop: oneshot::Receiver<()>) {
        let Self { mut incoming, mut dispatcher } = self;
        loop {
            select! {
                biased;
                _ = &mut stop => break,
                (stream, peer) = incoming.next() => dispatcher.dispatch(stream.into_std(), peer.ip()),
            }
        }
        sweep(incoming, &mut dispatcher);
    }
}

/// Takes the connections that wait in the kernel's queue. Their peers believe that they
/// are connected, and closing the port would reset them.
fn sweep(incoming: Incoming, dispatcher: &mut Dispatcher) {
    let Ok(listener) = incoming.into_listener().into_std() else { return };
    for _ in 0..MAX_SWEPT_CONNECTIONS {
        let Ok((stream, peer)) = listener.accept() else { break };
        dispatcher.dispatch(stream.set_nonblocking(true).map(|()| stream), peer.ip());
    }
}

impl Dispatcher {
    pub fn new(
        threads: Vec<SocketSender>,
        permits: Arc<Semaphore>,
        max_per_address: usize,
        metrics: Arc<ListenerMetrics>,
    ) -> Self {
        // 0: no limit.
        let (max_per_address, over_quota) = if max_per_address == 0 {
            (usize::MAX, Counter::noop())
        } else {
            (max_per_address, at_zero(counter!("user_service_quota_refused_total", "limit" => "connections")))
        };
        Self {
            threads,
            max_per_address,
            over_quota,
            metrics,
            full_log: LogThrottle::new(1, LOG_INTERVAL),
            over_quota_log: LogThrottle::new(1, LOG_INTERVAL),
            thread_log: LogThrottle::new(1, LOG_INTERVAL),
            addresses: Addresses::new(permits),
        }
    }

    /// Gives a connection to the thread with the fewest. Over the cap it is closed
    /// rather than left to wait in the kernel's queue: a peer in the queue believes
    /// that it is connected and its calls hang, while a peer that is refused goes to
    /// another replica. Permits of silent peers come free by the handshake deadline and
    /// the idle time.
    fn dispatch(&mut self, stream: io::Result<TcpStream>, peer: IpAddr) {
        let source = Source::of(peer);
        let Ok(stream) = stream else { return };
        let Some(address) = self.addresses.admit(source) else {
            self.metrics.refused.increment(1);
            if let Some(Admitted { unlogged }) = self.full_log.admit(Instant::now()) {
                tracing::warn!(
                    unlogged,
                    "connections are refused: max_connections, or an address's share, is reached"
                );
            }
            return;
        };
        if address.of_address() > self.max_per_address {
            self.over_quota.increment(1);
            if let Some(Admitted { unlogged }) = self.over_quota_log.admit(Instant::now()) {
                tracing::warn!(
                    unlogged,
                    "connections are refused: an address has max_connections_per_address"
                );
            }
            return;
        }
        let fewest =
            |thread: &&SocketSender| (thread.load.connections.load(Relaxed), thread.load.calls.load(Relaxed));
        let Some(thread) = self.threads.iter().min_by_key(fewest) else { return };
        // gRPC writes small frames and waits for the answer. It fails on a peer that
        // has left already, which its first read will tell.
        let _ = stream.set_nodelay(true);
        bound_unsent(&stream);
        self.metrics.accepted.increment(1);
        let permit = ConnectionPermit::take(&thread.load, address);
        if thread.sockets.send(Accepted { stream, source, permit }).is_err()
            && let Some(Admitted { unlogged }) = self.thread_log.admit(Instant::now())
        {
            tracing::error!(unlogged, "a serving thread has ended");
        }
    }
}
