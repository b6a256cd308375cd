//! Writes that become one transaction: what they are about, as it was read, and
//! what they make of it.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::{
    domain::{
        Change, Email, Error, Idempotency, Revision, Target, Timestamp, User, UserId, Write, WriteResult,
    },
    store::apply::{ChangeKind, RecordedWrite, Transaction, apply},
};

/// Where revisions begin as long as the real ones are not known, which only the
/// database gives out; no store gets there.
const PROVISIONAL_BASE: Revision = 1 << 62;

/// What writes are about.
#[derive(Default)]
pub(super) struct Keys<'a> {
    pub ids: Vec<&'a str>,
    pub emails: Vec<&'a str>,
    pub requests: Vec<&'a [u8]>,
}

impl<'a> Keys<'a> {
    pub fn of(writes: impl Iterator<Item = &'a Write>) -> Self {
        let mut keys = Self::default();
        for write in writes {
            match write.change.target() {
                Target::Id(id) => keys.ids.push(id.as_str()),
                Target::Email(email) => keys.emails.push(email.as_str()),
            }
            keys.emails.extend(write.change.email().map(Email::as_str));
            // A change by address may create a user under this id.
            if let Change::Upsert { id: None, new_id, .. } | Change::Import { id: None, new_id, .. } =
                &write.change
            {
                keys.ids.push(new_id.as_str());
            }
            keys.requests.extend(write.idempotency.as_ref().map(|idempotency| idempotency.key.as_slice()));
        }
        keys
    }
}

/// A row of the change log.
pub(super) struct ChangeRow {
    pub time: Timestamp,
    pub kind: ChangeKind,
    pub id: UserId,
    pub user: Option<User>,
}

/// A row that a write is known again by.
pub(super) struct IdempotencyRow {
    pub idempotency: Idempotency,
    pub id: UserId,
    pub revision: Revision,
    pub time: Timestamp,
}

/// The part of the store that the writes are about. Whatever they may ask for
/// has been read.
#[derive(Default)]
pub(super) struct Batch {
    users: HashMap<UserId, User>,
    ids_by_email: HashMap<Email, UserId>,
    recorded: HashMap<[u8; 32], RecordedWrite>,
    /// Users as recorded writes left them.
    versions: HashMap<Revision, User>,
    dirty: BTreeSet<UserId>,
    /// Users who were there when they were read.
    found: HashSet<UserId>,
    pub log: Vec<ChangeRow>,
    pub idempotency_rows: HashMap<[u8; 32], IdempotencyRow>,
}

/// Puts the revisions after `base` in place of the provisional ones.
pub(super) fn assign_revisions(answers: &mut [Result<WriteResult, Error>], base: Revision) {
    let number = |revision: &mut Revision| {
        if *revision > PROVISIONAL_BASE {
            *revision = *revision - PROVISIONAL_BASE + base;
        }
    };
    for written in answers.iter_mut().flatten() {
        number(&mut written.revision);
        if let Some(user) = &mut written.user {
            number(&mut user.revision);
        }
    }
}

impl Batch {
    /// Loads a user as the store has it.
    pub fn load(&mut self, user: User) {
        self.found.insert(user.id.clone());
        self.ids_by_email.insert(user.fields.email.clone(), user.id.clone());
        self.users.insert(user.id.clone(), user);
    }

    /// Loads a recorded write, the user as it left it, and the user as it is now.
    pub fn load_recorded(
        &mut self,
        key: [u8; 32],
        recorded: RecordedWrite,
        left: Option<User>,
        now: Option<User>,
    ) {
        self.versions.extend(left.map(|user| (recorded.revision, user)));
        if let Some(user) = now
            && !self.users.contains_key(&user.id)
        {
            self.found.insert(user.id.clone());
            self.users.insert(user.id.clone(), user);
        }
        self.recorded.insert(key, recorded);
    }

    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.users.keys().map(UserId::as_str)
    }

    pub fn recorded_count(&self) -> usize {
        self.recorded.len()
    }

    /// Whether there is nothing to write.
    pub fn is_unchanged(&self) -> bool {
        self.log.is_empty() && self.idempotency_rows.is_empty()
    }

    pub fn apply(&mut self, write: &Write, now: Timestamp) -> Result<WriteResult, Error> {
        apply(self, write, now)
    }

    /// How many revisions it takes.
    pub fn count(&self) -> i64 {
        i64::try_from(self.log.len()).unwrap_or(i64::MAX)
    }

    /// How far a provisional revision is behind the last one of this batch.
    pub fn offset_from_last(&self, revision: Revision) -> i64 {
        (revision - PROVISIONAL_BASE).cast_signed() - self.count()
    }

    /// Users to be deleted, and users as they are to be stored.
    pub fn dirty_users(&self) -> (Vec<&str>, Vec<&User>) {
        let gone = self.dirty.iter().filter(|id| !self.users.contains_key(*id) && self.found.contains(*id));
        let gone = gone.map(UserId::as_str);
        let there = self.dirty.iter().filter_map(|id| self.users.get(id));
        (gone.collect(), there.collect())
    }

    fn log(&mut self, kind: ChangeKind, id: &UserId, user: Option<User>, time: Timestamp) {
        self.dirty.insert(id.clone());
        self.log.push(ChangeRow { time, kind, id: id.clone(), user });
    }
}

impl Transaction for Batch {
    type Error = Error;

    fn find_recorded(&mut self, key: &[u8; 32], _since: Timestamp) -> Result<Option<RecordedWrite>, Error> {
        Ok(self.recorded.get(key).cloned())
    }

    fn user_by_id(&mut self, id: &UserId) -> Result<Option<User>, Error> {
        Ok(self.users.get(id).cloned())
    }

    fn user_by_email(&mut self, email: &Email) -> Result<Option<User>, Error> {
        Ok(self.ids_by_email.get(email).and_then(|id| self.users.get(id)).cloned())
    }

    fn email_owner(&mut self, email: &Email) -> Result<Option<UserId>, Error> {
        Ok(self.ids_by_email.get(email).cloned())
    }

    fn user_at_revision(&mut self, revision: Revision) -> Result<Option<User>, Error> {
        Ok(self.versions.get(&revision).cloned())
    }

    fn next_revision(&self) -> Revision {
        PROVISIONAL_BASE + self.log.len() as Revision + 1
    }

    fn put(&mut self, kind: ChangeKind, user: &User, now: Timestamp) -> Result<(), Error> {
        if let Some(before) = self.users.insert(user.id.clone(), user.clone()) {
            self.ids_by_email.remove(&before.fields.email);
        }
        self.ids_by_email.insert(user.fields.email.clone(), user.id.clone());
        self.versions.insert(user.revision, user.clone());
        self.log(kind, &user.id, Some(user.clone()), now);
        Ok(())
    }

    fn delete(&mut self, id: &UserId, now: Timestamp) -> Result<(), Error> {
        if let Some(user) = self.users.remove(id) {
            self.ids_by_email.remove(&user.fields.email);
        }
        self.log(ChangeKind::Deleted, id, None, now);
        Ok(())
    }

    fn record(
        &mut self,
        idempotency: &Idempotency,
        id: &UserId,
        revision: Revision,
        time: Timestamp,
    ) -> Result<(), Error> {
        let recorded = RecordedWrite { payload: idempotency.payload, id: id.clone(), revision };
        self.recorded.insert(idempotency.key, recorded);
        let row = IdempotencyRow { idempotency: *idempotency, id: id.clone(), revision, time };
        self.idempotency_rows.insert(idempotency.key, row);
        Ok(())
    }
}
