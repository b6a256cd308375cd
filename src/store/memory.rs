//! Users in memory, for trying things out and for tests: the rules of the
//! durable store, none of its durability.
//!
//! A panic costs the call that it happens in. A write is decided before anything of it is made,
//! and each step of making it may be repeated. So the next call finishes a write that a panic has
//! left half done.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Bound,
    sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::watch;
use uuid::Uuid;

use super::{
    CLOSED,
    apply::{ChangeKind, RecordedWrite, Transaction, apply},
};
use crate::{
    config::Config,
    domain::{
        Deadline, Email, Entry, Error, Event, Idempotency, LogHead, LogPosition, Page, PageSize, Revision,
        Store, StoreHealth, StoreId, Timestamp, User, UserId, UserKey, Write, WriteResult,
    },
    util::fault_point::fault_point,
};

#[cfg(test)]
mod panics;

/// The change log and the request ids are bounded in rows as well as in time:
/// nothing else keeps a long run of writes from eating the memory.
const MAX_CHANGES: usize = 100_000;
const MAX_REQUEST_IDS: usize = 100_000;

/// How many rows of each kind one write clears away. More than the one that it
/// adds, so that clearing keeps up.
const PRUNE_BATCH_ROWS: usize = 4;

pub(super) struct MemoryStore {
    id: StoreId,
    state: RwLock<State>,
    /// The last revision.
    newest: watch::Sender<Revision>,
    retention: Retention,
}

/// What the change log keeps.
struct Retention {
    age: Duration,
    rows: usize,
}

#[derive(Default)]
struct State {
    users: BTreeMap<UserId, User>,
    ids_by_email: HashMap<Email, UserId>,
    revision: Revision,
    changes: BTreeMap<Revision, Entry>,
    recorded: HashMap<[u8; 32], (Timestamp, RecordedWrite)>,
    /// The keys of `recorded` with when they were put there, oldest first.
    recorded_at: VecDeque<(Timestamp, [u8; 32])>,
    closed: bool,
    /// What the present write changes, until all of it is made.
    pending: Option<Changed>,
}

/// What one write changes.
#[derive(Debug, Default)]
struct Changed {
    entry: Option<Entry>,
    recorded: Option<([u8; 32], Timestamp, RecordedWrite)>,
}

impl MemoryStore {
    pub fn new(config: &Config) -> Self {
        super::metrics::writable().set(1.0);
        Self {
            id: StoreId(Uuid::new_v4().into_bytes()),
            state: RwLock::default(),
            newest: watch::Sender::new(0),
            retention: Retention {
                age: config.change_log_retention,
                rows: config.change_log_rows.min(MAX_CHANGES),
            },
        }
    }

    fn read(&self) -> Result<RwLockReadGuard<'_, State>, Error> {
        let state = self.shared();
        if state.closed { Err(CLOSED) } else { Ok(state) }
    }

    fn write(&self) -> Result<RwLockWriteGuard<'_, State>, Error> {
        let state = self.exclusive();
        if state.closed { Err(CLOSED) } else { Ok(state) }
    }

    fn shared(&self) -> RwLockReadGuard<'_, State> {
        loop {
            if let Ok(state) = self.state.read() {
                return state;
            }
            drop(self.exclusive());
        }
    }

    /// Finishes the write that a panic has left first.
    fn exclusive(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(|poisoned| {
            let mut state = poisoned.into_inner();
            state.finish();
            self.publish(state.revision);
            self.state.clear_poison();
            state
        })
    }

    /// Tells watches of a revision.
    fn publish(&self, revision: Revision) {
        self.newest.send_if_modified(|newest| std::mem::replace(newest, revision) != revision);
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &UserKey, _: Deadline) -> Result<Option<Arc<User>>, Error> {
        let state = self.read()?;
        let user = match key {
            UserKey::Id(id) => state.users.get(id),
            UserKey::Email(email) => state.by_email(email),
        };
        Ok(user.cloned().map(Arc::new))
    }

    async fn batch_get(&self, ids: &[UserId], _: Deadline) -> Result<Vec<Option<User>>, Error> {
        let state = self.read()?;
        Ok(ids.iter().map(|id| state.users.get(id).cloned()).collect())
    }

    async fn list(&self, after: Option<&UserId>, size: PageSize, _: Deadline) -> Result<Page, Error> {
        let state = self.read()?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = state.users.range::<UserId, _>((from, Bound::Unbounded)).map(|(_, user)| user);
        let users = rest.by_ref().take(size.get()).cloned().collect();
        Ok(Page { users, more: rest.next().is_some() })
    }

    async fn write(&self, write: Write, _: Deadline) -> Result<WriteResult, Error> {
        let mut state = self.write()?;
        let now = Timestamp::now();
        state.expire(now, &self.retention);
        let mut transaction = MemoryTransaction { state: &state, changed: Changed::default() };
        let written = apply(&mut transaction, &write, now)?;
        state.pending = Some(transaction.changed);
        state.finish();
        self.publish(state.revision);
        fault_point();
        Ok(written)
    }

    async fn log_head(&self, _: Deadline) -> Result<LogHead, Error> {
        let state = self.read()?;
        let newest =
            state.changes.last_key_value().map_or(LogPosition::BEGINNING, |(_, entry)| entry.position);
        Ok(LogHead { store: self.id, newest })
    }

    async fn changes(&self, after: Revision, limit: usize, _: Deadline) -> Result<Vec<Entry>, Error> {
        let state = self.read()?;
        Ok(state.changes.range(after + 1..).take(limit).map(|(_, entry)| entry.clone()).collect())
    }

    async fn changed(&self, after: Revision) {
        // The sender lives as long as the store.
        let _ = self.newest.subscribe().wait_for(|newest| *newest > after).await;
    }

    async fn probe(&self) -> StoreHealth {
        let open = !self.shared().closed;
        StoreHealth { reads: open, writes: open }
    }

    async fn close(&self) {
        *self.exclusive() = State { closed: true, ..State::default() };
    }
}

impl State {
    fn by_email(&self, email: &Email) -> Option<&User> {
        self.ids_by_email.get(email).and_then(|id| self.users.get(id))
    }

    /// Makes what the present write changes.
    ///
    /// **Invariant:** a step that was made may be made again.
    fn finish(&mut self) {
        let Self { users, ids_by_email, revision, changes, recorded, recorded_at, pending, .. } = self;
        fault_point();
        if let Some(entry) = pending.as_ref().and_then(|changed| changed.entry.as_ref()) {
            let id = match &entry.event {
                Event::Created(user) | Event::Updated(user) => &user.id,
                Event::Deleted(id) => id,
            };
            // The user still tells the address that it had.
            if let Some(before) = users.get(id) {
                ids_by_email.remove(&before.fields.email);
            }
            fault_point();
            if let Some(user) = entry.event.user() {
                users.insert(id.clone(), user.clone());
                fault_point();
                ids_by_email.insert(user.fields.email.clone(), id.clone());
            } else {
                users.remove(id);
            }
            fault_point();
            changes.insert(entry.position.revision, entry.clone());
            fault_point();
            *revision = entry.position.revision;
        }
        fault_point();
        if let Some((key, time, write)) = pending.as_ref().and_then(|changed| changed.recorded.as_ref()) {
            recorded.insert(*key, (*time, write.clone()));
            fault_point();
            if recorded_at.back() != Some(&(*time, *key)) {
                recorded_at.push_back((*time, *key));
            }
        }
        fault_point();
        *pending = None;
    }

    fn expire(&mut self, now: Timestamp, kept: &Retention) {
        for _ in 0..PRUNE_BATCH_ROWS {
            let Some((_, entry)) = self.changes.first_key_value() else { break };
            let is_young = entry.position.time >= now.before(kept.age);
            // The last one stays: it is the position of the watches.
            if (is_young && self.changes.len() <= kept.rows) || self.changes.len() == 1 {
                break;
            }
            self.changes.pop_first();
        }
        for _ in 0..PRUNE_BATCH_ROWS {
            let Some((time, key)) = self.recorded_at.front() else { break };
            let is_young = *time >= now.before(Idempotency::RETENTION);
            if is_young && self.recorded_at.len() <= MAX_REQUEST_IDS {
                break;
            }
            // The key may have been used again since.
            if self.recorded.get(key).is_some_and(|(recorded_at, _)| recorded_at == time) {
                self.recorded.remove(key);
            }
            self.recorded_at.pop_front();
        }
    }
}

/// One write. It reads the state, and keeps apart what it changes.
struct MemoryTransaction<'a> {
    state: &'a State,
    changed: Changed,
}

impl MemoryTransaction<'_> {
    fn log(&mut self, time: Timestamp, event: Event) {
        fault_point();
        let position = LogPosition { revision: self.next_revision(), time };
        self.changed.entry = Some(Entry { position, event });
    }
}

impl Transaction for MemoryTransaction<'_> {
    type Error = Error;

    fn find_recorded(&mut self, key: &[u8; 32], since: Timestamp) -> Result<Option<RecordedWrite>, Error> {
        let recorded = self.state.recorded.get(key).filter(|(time, _)| *time >= since);
        Ok(recorded.map(|(_, recorded)| recorded.clone()))
    }

    fn user_by_id(&mut self, id: &UserId) -> Result<Option<User>, Error> {
        Ok(self.state.users.get(id).cloned())
    }

    fn user_by_email(&mut self, email: &Email) -> Result<Option<User>, Error> {
        Ok(self.state.by_email(email).cloned())
    }

    fn email_owner(&mut self, email: &Email) -> Result<Option<UserId>, Error> {
        Ok(self.state.ids_by_email.get(email).cloned())
    }

    fn user_at_revision(&mut self, revision: Revision) -> Result<Option<User>, Error> {
        Ok(self.state.changes.get(&revision).and_then(|entry| entry.event.user().cloned()))
    }

    fn next_revision(&self) -> Revision {
        self.state.revision + 1
    }

    fn put(&mut self, kind: ChangeKind, user: &User, now: Timestamp) -> Result<(), Error> {
        let event = if kind == ChangeKind::Created { Event::Created } else { Event::Updated };
        self.log(now, event(user.clone()));
        Ok(())
    }

    fn delete(&mut self, id: &UserId, now: Timestamp) -> Result<(), Error> {
        self.log(now, Event::Deleted(id.clone()));
        Ok(())
    }

    fn record(
        &mut self,
        idempotency: &Idempotency,
        id: &UserId,
        revision: Revision,
        now: Timestamp,
    ) -> Result<(), Error> {
        let recorded = RecordedWrite { payload: idempotency.payload, id: id.clone(), revision };
        self.changed.recorded = Some((idempotency.key, now, recorded));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_request_ids_and_changes_make_room_for_new_ones() {
        let mut state = State::default();
        let now = Timestamp::now();
        let id = UserId::parse("ada").unwrap();
        let kept = Retention { age: Duration::MAX, rows: MAX_CHANGES };
        let over = u64::try_from(MAX_CHANGES.max(MAX_REQUEST_IDS)).unwrap() + 10;
        let key = |number: u64| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_be_bytes());
            key
        };
        for number in 1..=over {
            state.expire(now, &kept);
            let mut transaction = MemoryTransaction { state: &state, changed: Changed::default() };
            transaction.delete(&id, now).unwrap();
            let idempotency = Idempotency { key: key(number), payload: [0; 32] };
            transaction.record(&idempotency, &id, number, now).unwrap();
            state.pending = Some(transaction.changed);
            state.finish();
        }
        state.expire(now, &kept);
        assert_eq!((state.changes.len(), state.recorded.len()), (MAX_CHANGES, MAX_REQUEST_IDS));
        assert_eq!(state.recorded_at.len(), MAX_REQUEST_IDS);
        let mut transaction = MemoryTransaction { state: &state, changed: Changed::default() };
        assert!(transaction.find_recorded(&key(1), now).unwrap().is_none());
        assert!(transaction.find_recorded(&key(over), now).unwrap().is_some());
    }
}
