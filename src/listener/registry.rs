//! The open connections, for the admin port.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use slab::Slab;
use tokio::time::Instant;

use super::{in_flight::ConnectionState, metrics::ConnectionPhase};

/// Every open connection. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct ConnectionRegistry(Arc<Mutex<Slab<Arc<ConnectionState>>>>);

/// A connection as it is listed: nothing of its peer, whose address may be a person's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    pub number: u64,
    pub state: ConnectionPhase,
    /// The number of its serving thread.
    pub thread: usize,
    pub age: Duration,
    pub calls: usize,
    /// How long it has had no call.
    pub idle: Duration,
}

impl ConnectionRegistry {
    /// Registers a connection until the returned value is dropped.
    pub fn enter(&self, connection: Arc<ConnectionState>) -> impl Sized {
        let key = self.lock().insert(connection);
        Registration { registry: self.clone(), key }
    }

    /// The oldest connections first.
    pub fn listed(&self) -> Vec<ConnectionInfo> {
        let mut connections: Vec<_> =
            self.lock().iter().map(|(_, connection)| Arc::clone(connection)).collect();
        connections.sort_by_key(|connection| connection.opened_at);
        let now = Instant::now();
        let listed = connections.iter().map(|connection| ConnectionInfo {
            number: connection.number(),
            state: connection.state(),
            thread: connection.thread(),
            age: now.saturating_duration_since(connection.opened_at),
            calls: connection.calls(),
            idle: connection
                .idle_since()
                .map_or(Duration::ZERO, |since| now.saturating_duration_since(since)),
        });
        listed.collect()
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Arc<ConnectionState>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Registration {
    registry: ConnectionRegistry,
    key: usize,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.lock().try_remove(self.key);
    }
}
