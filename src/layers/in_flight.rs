//! The calls in flight, for the admin port.
//!
//! Each thread has its own list, so calls do not contend for a lock. Another thread
//! takes the lock only to read the list.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use slab::Slab;

use crate::rpc::methods::Method;

/// More threads than this share lists.
const SHARDS: usize = 64;

thread_local! {
    static LIST: usize = {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        THREADS.fetch_add(1, Relaxed) % SHARDS
    };
}

/// Every call in flight. Clones share it.
#[derive(Clone, Debug)]
pub struct InFlight(Arc<[Mutex<Slab<Entry>>; SHARDS]>);

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

/// Where a call stands.
#[derive(Debug)]
pub struct InFlightKey {
    list: usize,
    key: usize,
}

impl Default for InFlight {
    fn default() -> Self {
        Self(Arc::new(std::array::from_fn(|_| Mutex::default())))
    }
}

impl InFlight {
    /// Lists a call until [`Self::leave`].
    pub fn enter(&self, method: Option<&'static Method>, connection: u64, since: Instant) -> InFlightKey {
        let list = LIST.with(|list| *list);
        InFlightKey { list, key: self.list(list).insert(Entry { method, connection, since }) }
    }

    pub fn leave(&self, place: &InFlightKey) {
        self.list(place.list).try_remove(place.key);
    }

    /// The oldest calls first.
    pub fn listed(&self) -> Vec<CallInfo> {
        let mut entries = Vec::new();
        for list in 0..SHARDS {
            entries.extend(self.list(list).iter().map(|(_, entry)| *entry));
        }
        entries.sort_by_key(|entry| entry.since);
        let name = |entry: &Entry| entry.method.map_or("_OTHER", Method::full_name);
        let listed = |entry: &Entry| CallInfo {
            method: name(entry),
            connection: entry.connection,
            age: entry.since.elapsed(),
        };
        entries.iter().map(listed).collect()
    }

    fn list(&self, list: usize) -> MutexGuard<'_, Slab<Entry>> {
        self.0[list].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
