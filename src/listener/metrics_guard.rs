//! The metrics, the list entry and the close of one connection.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    connection::ServeContext,
    connection_state::ConnectionState,
    lifetime::Lifetime,
    lingering_close::{Closing, Outcome, Socket},
    metrics::{CloseReason, ConnectionPhase, ListenerMetrics, Protocol},
    registry::ConnectionRegistry,
    tls::Transport,
};
use crate::util::registry::RegistryKey;

/// Keeps the figures and the list of connections right however a connection ends.
pub struct MetricsGuard {
    metrics: Arc<ListenerMetrics>,
    registry: ConnectionRegistry,
    key: RegistryKey,
    shared: Arc<ConnectionState>,
    state: ConnectionPhase,
    /// Stays what it is at first only when the thread ends under the connection.
    pub reason: CloseReason,
    /// It was ended with what was left to do.
    pub cut: bool,
}

impl MetricsGuard {
    pub fn new<S>(context: &ServeContext<S>, shared: Arc<ConnectionState>) -> Self {
        let (metrics, registry) = (Arc::clone(&context.metrics), context.registry.clone());
        let (state, reason) = (ConnectionPhase::Handshake, CloseReason::DrainCut);
        metrics.entered(state);
        let key = registry.enter(Arc::clone(&shared));
        Self { metrics, registry, key, shared, state, reason, cut: false }
    }

    /// Its first bytes, or its TLS handshake, have told the protocol.
    pub fn speak(&self, protocol: Protocol) {
        self.shared.set_protocol(protocol);
        self.metrics.speaks(protocol);
    }

    pub fn enter(&mut self, state: ConnectionPhase) {
        if state != self.state {
            self.metrics.left(self.state);
            self.metrics.entered(state);
            self.shared.enter(state);
            self.state = state;
        }
    }

    /// Closes a connection whose TLS handshake failed. Without a lingering close, an RST
    /// could discard the alert that says why.
    pub async fn refuse(&mut self, told: Option<Transport>, lifetime: &Lifetime) {
        self.reason = CloseReason::Handshake;
        if let Some(socket) = told {
            self.reason = CloseReason::Tls;
            self.close(socket, true, lifetime).await;
        }
    }

    pub fn count_cut(&self, calls: usize) {
        self.metrics.calls_cut.increment(calls as u64);
    }

    /// Closes the socket. `complete` is whether all that was to be written is written.
    pub async fn close<T: Socket>(&mut self, socket: T, complete: bool, lifetime: &Lifetime) {
        // Nothing was said to a peer that has not shaken hands.
        if self.reason == CloseReason::Handshake {
            return;
        }
        self.enter(ConnectionPhase::Closing);
        let ConnectionState { handle, .. } = &*self.shared;
        if handle.is_going_away() && self.shared.has_served() {
            // An answer that was complete before may be among what the kernel still has.
            handle.on_delivery(Box::new(drop));
        }
        let mut closing = Closing::new(socket);
        let outcome = match closing.acknowledged(lifetime.acknowledged_until(Instant::now())).await {
            Ok(()) => {
                self.settle(complete);
                closing.closed().await
            }
            Err(outcome) => {
                self.cut |= outcome == Outcome::Unacknowledged;
                self.settle(complete && outcome != Outcome::Unacknowledged);
                outcome
            }
        };
        self.metrics.closes.count(outcome);
    }

    /// Whether the answers were delivered that were complete when the connection went.
    fn settle(&self, delivered: bool) {
        let answers = self.shared.handle.settle(delivered);
        if self.cut && !delivered {
            self.count_cut(answers);
        }
    }
}

impl Drop for MetricsGuard {
    fn drop(&mut self) {
        // Here only when the thread ends under the connection, or there was no handshake.
        self.shared.handle.settle(false);
        self.registry.leave(&self.key);
        if let Some(protocol) = self.shared.protocol() {
            self.metrics.spoke(protocol);
        }
        self.metrics.left(self.state);
        self.metrics.closed(self.reason);
    }
}
