//! A registry of open things, which the admin port lists.
//!
//! Each thread has its own list, so entering and leaving contend for no lock. Another
//! thread takes the lock only to read the list.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use slab::Slab;

/// More threads than this share lists.
const SHARDS: usize = 64;

thread_local! {
    static SHARD: usize = {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        THREADS.fetch_add(1, Relaxed) % SHARDS
    };
}

/// Everything that has entered and not left. Clones share it.
#[derive(Debug)]
pub struct Registry<T>(Arc<[Mutex<Slab<T>>; SHARDS]>);

/// Where an entry is.
#[derive(Debug)]
pub struct RegistryKey {
    shard: usize,
    key: usize,
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self(Arc::new(std::array::from_fn(|_| Mutex::default())))
    }
}

impl<T> Clone for Registry<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Registry<T> {
    /// Lists an entry until [`Self::leave`].
    pub fn enter(&self, entry: T) -> RegistryKey {
        let shard = SHARD.with(|shard| *shard);
        RegistryKey { shard, key: self.shard(shard).insert(entry) }
    }

    pub fn leave(&self, key: &RegistryKey) {
        let left = self.shard(key.shard).try_remove(key.key);
        // Not under the lock, which an entry's own drop might need.
        drop(left);
    }

    /// A copy of every entry, the oldest first.
    pub fn oldest_first<K: Ord>(&self, since: impl Fn(&T) -> K) -> Vec<T>
    where
        T: Clone,
    {
        let mut entries = Vec::new();
        for shard in 0..SHARDS {
            entries.extend(self.shard(shard).iter().map(|(_, entry)| entry.clone()));
        }
        entries.sort_by_key(since);
        entries
    }

    fn shard(&self, shard: usize) -> MutexGuard<'_, Slab<T>> {
        self.0[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
