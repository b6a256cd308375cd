//! Users that were read or written lately, so that a read of one costs no SQL.
//!
//! The cache never holds a user that is older than what another read could have
//! seen. The writer closes it to the users of a batch before it commits them, and
//! puts what they became in place before it answers; see [`Cache::begin`]. A read
//! in between goes to the file.

use std::{
    collections::HashMap,
    mem::{self, ManuallyDrop},
    sync::Arc,
    time::Duration,
};

use metrics::{Counter, Gauge, counter, gauge};
use quick_cache::{
    Weighter,
    sync::{self, GuardResult},
};

use super::commit_epoch::{CommitEpoch, UnstableEpoch};
use crate::{
    domain::{User, UserId},
    util::fault_point::fault_point,
};

/// What a user weighs besides its texts: the structs, their pointers and the
/// cache's own entry.
const ENTRY_OVERHEAD_BYTES: usize = mem::size_of::<User>() + 96;

/// Users by id, bounded in bytes.
pub(super) struct Cache {
    users: sync::Cache<UserId, Arc<User>, Bytes>,
    /// One is between [`Cache::begin`] and the end of what it returns.
    commit_epoch: Arc<CommitEpoch>,
    hits: Counter,
    misses: Counter,
    weight: Gauge,
}

#[derive(Clone)]
struct Bytes;

impl Weighter<UserId, Arc<User>> for Bytes {
    fn weight(&self, id: &UserId, user: &Arc<User>) -> u64 {
        // The id stands in the key and in the user.
        let fields = user.fields.texts().into_iter().map(str::len).sum::<usize>();
        (ENTRY_OVERHEAD_BYTES + 2 * id.as_str().len() + fields) as u64
    }
}

/// The users that a batch changed, and what became of each in the end: readers may have seen that
/// already, and must not see what was before.
pub(super) type Changed = HashMap<UserId, Option<User>>;

impl Cache {
    /// For `capacity` bytes; with 0 nothing is kept.
    pub fn new(capacity: usize, commit_epoch: Arc<CommitEpoch>) -> Self {
        let (lookups, bytes) = ("user_service_store_cache_lookups_total", "user_service_store_cache_bytes");
        let users = capacity / (2 * ENTRY_OVERHEAD_BYTES);
        Self {
            users: sync::Cache::with_weighter(users.max(1), capacity as u64, Bytes),
            commit_epoch,
            hits: counter!(lookups, "result" => "hit"),
            misses: counter!(lookups, "result" => "miss"),
            weight: gauge!(bytes),
        }
    }

    /// The user, where it is here.
    pub fn get_cached(&self, id: &UserId) -> Option<Arc<User>> {
        self.users.get(id).inspect(|_| self.hits.increment(1))
    }

    /// The user from here, or else from `read`.
    pub fn get<E>(
        &self,
        id: &UserId,
        read: impl FnOnce() -> Result<Option<User>, E>,
    ) -> Result<Option<Arc<User>>, E> {
        let guard = match self.users.get_value_or_guard(id, Some(Duration::ZERO)) {
            GuardResult::Value(user) => {
                self.hits.increment(1);
                return Ok(Some(user));
            }
            GuardResult::Guard(guard) => Some(guard),
            // Another read is filling this entry.
            GuardResult::Timeout => None,
        };
        self.misses.increment(1);
        // Asked after the place was taken: a batch that begins later takes the place away, and
        // one that began earlier is seen here.
        let quiet = self.commit_epoch.stable().is_some();
        let user = read()?.map(Arc::new);
        if let (Some(guard), Some(user), true) = (guard, &user, quiet) {
            // Refused where the entry was removed during the read.
            let _ = guard.insert(user.clone());
        }
        Ok(user)
    }

    /// To be called before a batch is committed: forgets the users that it
    /// changes, and keeps reads of what was there before from bringing them back.
    pub fn begin(&self, changed: &Changed) -> CachedCommit<'_> {
        let epoch = self.commit_epoch.begin();
        for id in changed.keys() {
            self.users.remove(id);
        }
        CachedCommit { cache: self, epoch }
    }

    /// Forgets everything for good: nothing is written through here any more, so
    /// nothing could keep the users here true.
    pub fn close(&self) {
        // Never ended.
        let _ = ManuallyDrop::new(self.commit_epoch.begin());
        self.users.clear();
    }
}

/// A commit that the cache is closed to. Dropping it opens the cache again.
#[must_use]
pub(super) struct CachedCommit<'a> {
    cache: &'a Cache,
    epoch: UnstableEpoch<'a>,
}

impl CachedCommit<'_> {
    /// To be called after the commit and before its answers, with what was changed,
    /// or with nothing if the commit failed.
    #[expect(clippy::cast_precision_loss, reason = "a cache is smaller than 2^53 bytes")]
    pub fn end(self, changed: Changed) {
        let Self { cache, epoch } = self;
        for (id, user) in changed {
            fault_point();
            match user {
                Some(user) => cache.users.insert(id, Arc::new(user)),
                None => drop(cache.users.remove(&id)),
            }
        }
        drop(epoch);
        cache.weight.set(cache.users.weight() as f64);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::domain::{Fields, Revision, Timestamp};

    fn of_bytes(capacity: usize) -> Cache {
        Cache::new(capacity, Arc::default())
    }

    fn id(text: &str) -> UserId {
        UserId::parse(text).unwrap()
    }

    fn user(revision: Revision) -> User {
        let time = Timestamp::from_micros(0);
        User {
            id: id("a"),
            fields: Fields::example("ada@example.com"),
            revision,
            create_time: time,
            update_time: time,
        }
    }

    fn changed(revision: Revision) -> Changed {
        Changed::from([(id("a"), Some(user(revision)))])
    }

    /// The revision that a read sees whose look at the file sees `file`.
    fn read(cache: &Cache, file: Option<Revision>) -> Option<Revision> {
        let user = cache.get(&id("a"), || Ok::<_, Infallible>(file.map(user))).unwrap();
        user.map(|user| user.revision)
    }

    #[test]
    fn a_user_is_read_from_the_file_once() {
        let cache = of_bytes(1 << 20);
        assert_eq!(read(&cache, Some(1)), Some(1));
        assert_eq!(read(&cache, Some(2)), Some(1), "kept");
    }

    #[test]
    fn a_missing_user_is_looked_for_again() {
        let cache = of_bytes(1 << 20);
        assert_eq!(read(&cache, None), None);
        assert_eq!(read(&cache, Some(1)), Some(1));
    }

    #[test]
    fn a_commit_is_seen_at_once() {
        let cache = of_bytes(1 << 20);
        read(&cache, Some(1));
        cache.begin(&changed(2)).end(changed(2));
        assert_eq!(read(&cache, Some(9)), Some(2));
        assert_eq!(cache.get_cached(&id("a")).unwrap().revision, 2);
        let deleted = Changed::from([(id("a"), None)]);
        cache.begin(&deleted).end(deleted);
        assert_eq!(cache.get_cached(&id("a")), None, "deleted");
        assert_eq!(read(&cache, None), None, "deleted");
    }

    #[test]
    fn while_a_batch_is_committed_its_users_are_read_from_the_file_and_not_kept() {
        let cache = of_bytes(1 << 20);
        read(&cache, Some(1));
        let commit = cache.begin(&changed(2));
        assert_eq!(cache.get_cached(&id("a")), None, "it may be the old user still, or the new one already");
        assert_eq!(read(&cache, Some(1)), Some(1));
        assert_eq!(read(&cache, Some(2)), Some(2), "the commit is visible: no read may see the old user now");
        commit.end(Changed::new());
        assert_eq!(read(&cache, Some(3)), Some(3), "nothing was kept of the time between");
    }

    #[test]
    fn a_read_that_is_overtaken_by_a_commit_keeps_nothing() {
        let cache = of_bytes(1 << 20);
        let overtaken = cache.get(&id("a"), || {
            let before = user(1);
            cache.begin(&changed(2)).end(changed(2));
            Ok::<_, Infallible>(Some(before))
        });
        assert_eq!(overtaken.unwrap().unwrap().revision, 1, "it began before the commit");
        assert_eq!(read(&cache, Some(9)), Some(2));
        let mut commit = None;
        let overtaken_by_half = cache.get(&id("b"), || {
            commit = Some(cache.begin(&Changed::from([(id("b"), None)])));
            Ok::<_, Infallible>(Some(user(1)))
        });
        assert!(overtaken_by_half.unwrap().is_some());
        commit.unwrap().end(Changed::new());
        let after = cache.get(&id("b"), || Ok::<_, Infallible>(Some(user(3)))).unwrap().unwrap();
        assert_eq!(after.revision, 3, "what was read before the commit must not have been kept");
    }

    #[test]
    fn nothing_is_kept_beyond_the_capacity() {
        let cache = of_bytes(64 << 10);
        for number in 0..10_000 {
            let id = id(&number.to_string());
            let user = User { id: id.clone(), ..user(1) };
            cache.get(&id, || Ok::<_, Infallible>(Some(user))).unwrap();
        }
        assert!(cache.users.weight() <= 64 << 10 && cache.users.len() > 10);
        let none = of_bytes(0);
        read(&none, Some(1));
        assert_eq!(read(&none, Some(2)), Some(2));
    }
}
