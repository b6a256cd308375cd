//! The calls in flight, for the admin port.

use std::time::{Duration, Instant};

use crate::{
    rpc::methods::Method,
    util::registry::{Registry, RegistryKey},
};

/// Every call in flight. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct InFlight(Registry<Entry>);

#[derive(Clone, Copy, Debug)]
struct Entry {
    method: Option<&'static Method>,
    connection: u64,
    since: Instant,
}

/// A call as it is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallInfo {
    /// `_OTHER` where nothing is served under its path.
    pub method: &'static str,
    /// The number of its connection.
    pub connection: u64,
    pub age: Duration,
}

impl InFlight {
    /// Lists a call until [`Self::leave`].
    pub fn enter(&self, method: Option<&'static Method>, connection: u64, since: Instant) -> RegistryKey {
        self.0.enter(Entry { method, connection, since })
    }

    pub fn leave(&self, key: &RegistryKey) {
        self.0.leave(key);
    }

    /// The oldest calls first.
    pub fn listed(&self) -> Vec<CallInfo> {
        let listed = |entry: Entry| CallInfo {
            method: entry.method.map_or("_OTHER", Method::full_name),
            connection: entry.connection,
            age: entry.since.elapsed(),
        };
        self.0.oldest_first(|entry| entry.since).into_iter().map(listed).collect()
    }
}
