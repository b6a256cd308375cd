//! The open connections, for the admin port.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    connection_state::ConnectionState,
    metrics::{ConnectionPhase, Protocol},
};
use crate::util::registry::{Registry, RegistryKey};

/// Every open connection. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct ConnectionRegistry(Registry<Arc<ConnectionState>>);

/// A connection as it is listed: nothing of its peer, whose address may be a person's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    pub number: u64,
    pub state: ConnectionPhase,
    /// `None` until its first bytes, or its TLS handshake, tell.
    pub protocol: Option<Protocol>,
    /// The number of its serving thread.
    pub thread: usize,
    pub age: Duration,
    pub calls: usize,
    /// How long it has had no call.
    pub idle: Duration,
}

impl ConnectionRegistry {
    /// Lists a connection until [`Self::leave`].
    pub fn enter(&self, connection: Arc<ConnectionState>) -> RegistryKey {
        self.0.enter(connection)
    }

    pub fn leave(&self, key: &RegistryKey) {
        self.0.leave(key);
    }

    /// The oldest connections first.
    pub fn listed(&self) -> Vec<ConnectionInfo> {
        let now = Instant::now();
        let listed = |connection: Arc<ConnectionState>| ConnectionInfo {
            number: connection.number(),
            state: connection.state(),
            protocol: connection.protocol(),
            thread: connection.thread(),
            age: now.saturating_duration_since(connection.opened_at),
            calls: connection.calls(),
            idle: connection
                .idle_since()
                .map_or(Duration::ZERO, |since| now.saturating_duration_since(since)),
        };
        self.0.oldest_first(|connection| connection.opened_at).into_iter().map(listed).collect()
    }
}
