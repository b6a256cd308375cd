//! Which connections are open, for whoever asks the admin port.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use slab::Slab;
use tokio::time::Instant;

use super::{calls::Tally, meter::State};

/// Every open connection. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Census(Arc<Mutex<Slab<Arc<Tally>>>>);

/// A connection as it is listed: nothing of its peer, whose address may be a person's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    pub number: u64,
    pub state: State,
    /// The number of its serving thread.
    pub thread: usize,
    pub age: Duration,
    pub calls: usize,
    /// How long it has had no call.
    pub idle: Duration,
}

impl Census {
    /// Lists a connection until what is returned is dropped.
    pub fn enter(&self, tally: Arc<Tally>) -> impl Sized {
        let key = self.lock().insert(tally);
        Place { census: self.clone(), key }
    }

    /// The oldest connections first.
    pub fn listed(&self) -> Vec<Listed> {
        let mut tallies: Vec<_> = self.lock().iter().map(|(_, tally)| Arc::clone(tally)).collect();
        tallies.sort_by_key(|tally| tally.born);
        let now = Instant::now();
        let listed = tallies.iter().map(|tally| Listed {
            number: tally.number(),
            state: tally.state(),
            thread: tally.thread(),
            age: now.saturating_duration_since(tally.born),
            calls: tally.calls(),
            idle: tally.idle_since().map_or(Duration::ZERO, |since| now.saturating_duration_since(since)),
        });
        listed.collect()
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Arc<Tally>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Place {
    census: Census,
    key: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.census.lock().try_remove(self.key);
    }
}
