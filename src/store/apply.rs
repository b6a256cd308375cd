//! One write, the same way in every store that works in transactions.

use crate::domain::{
    Change, Effect, Email, Error, Event, Idempotency, Revision, Target, Timestamp, User, UserId, Write,
    WriteResult, decide,
};

/// What a store must be able to do inside one transaction. Nothing of it shows
/// outside before the store commits.
pub(super) trait Transaction {
    type Error: From<Error>;

    /// The write recorded under this key, unless it is older than `since`.
    fn find_recorded(
        &mut self,
        key: &[u8; 32],
        since: Timestamp,
    ) -> Result<Option<RecordedWrite>, Self::Error>;
    fn user_by_id(&mut self, id: &UserId) -> Result<Option<User>, Self::Error>;
    fn user_by_email(&mut self, email: &Email) -> Result<Option<User>, Self::Error>;
    fn email_owner(&mut self, email: &Email) -> Result<Option<UserId>, Self::Error>;
    /// The user as the write with this revision left it, while the change log
    /// holds that.
    fn user_at_revision(&mut self, revision: Revision) -> Result<Option<User>, Self::Error>;
    /// The revision of the next write.
    fn next_revision(&self) -> Revision;
    /// Stores a new user, unless its id or its address is taken. Returns whether it was
    /// stored.
    fn insert_if_absent(&mut self, user: &User, now: Timestamp) -> Result<bool, Self::Error> {
        let new = self.user_by_id(&user.id)?.is_none() && self.email_owner(&user.fields.email)?.is_none();
        if new {
            self.put(ChangeKind::Created, user, now)?;
        }
        Ok(new)
    }
    /// Stores a user and logs that, under the user's revision, which is spent.
    fn put(&mut self, kind: ChangeKind, user: &User, now: Timestamp) -> Result<(), Self::Error>;
    /// Removes a user and logs that, under the next revision, which is spent.
    fn delete(&mut self, id: &UserId, now: Timestamp) -> Result<(), Self::Error>;
    /// Keeps how to know the write again.
    fn record(
        &mut self,
        idempotency: &Idempotency,
        id: &UserId,
        revision: Revision,
        now: Timestamp,
    ) -> Result<(), Self::Error>;
}

/// A recorded write.
#[derive(Clone, Debug)]
pub(super) struct RecordedWrite {
    pub payload: [u8; 32],
    pub id: UserId,
    /// 0 where the write changed nothing.
    pub revision: Revision,
}

/// What a row of the change log says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChangeKind {
    Created = 1,
    Updated = 2,
    Deleted = 3,
}

/// What a row of the change log says: its kind, the user's id, and the user as it
/// was left, if it was. `None` where the parts do not go together.
pub(super) fn event(kind: i32, id: UserId, user: Option<User>) -> Option<Event> {
    match (kind, user) {
        (1, Some(user)) => Some(Event::Created(user)),
        (2, Some(user)) => Some(Event::Updated(user)),
        (3, None) => Some(Event::Deleted(id)),
        _ => None,
    }
}

/// Does what `write` asks for, or says why not and leaves everything as it was.
pub(super) fn apply<T: Transaction>(
    transaction: &mut T,
    write: &Write,
    now: Timestamp,
) -> Result<WriteResult, T::Error> {
    if let Some(idempotency) = &write.idempotency
        && let Some(written) = replay(transaction, &write.change, idempotency, now)?
    {
        return Ok(written);
    }
    if let Some(written) = create(transaction, write, now)? {
        return Ok(written);
    }
    let current = match write.change.target() {
        Target::Id(id) => transaction.user_by_id(id)?,
        Target::Email(email) => transaction.user_by_email(email)?,
    };
    let email_owner = match write.change.email() {
        Some(email) => transaction.email_owner(email)?,
        None => None,
    };
    let revision = transaction.next_revision();
    let effect = decide(&write.change, current.as_ref(), email_owner.as_ref(), revision, now)?;
    if write.validate_only {
        return Ok(WriteResult { user: effect.into_user(current), revision: 0 });
    }
    perform(transaction, &effect, now)?;
    let revision = if effect == Effect::Nothing { 0 } else { revision };
    written(transaction, write, effect, current, revision, now)
}

/// Makes the users of changes that bring new ones. Nearly all of them are new, so a
/// conflict is looked up only after the insert has found one.
fn create<T: Transaction>(
    transaction: &mut T,
    write: &Write,
    now: Timestamp,
) -> Result<Option<WriteResult>, T::Error> {
    let revision = transaction.next_revision();
    let brings_new = matches!(write.change, Change::Create { .. } | Change::Import { .. });
    if !brings_new || write.validate_only {
        return Ok(None);
    }
    match decide(&write.change, None, None, revision, now) {
        Ok(Effect::Create(user)) if transaction.insert_if_absent(&user, now)? => {
            written(transaction, write, Effect::Create(user), None, revision, now).map(Some)
        }
        _ => Ok(None),
    }
}

/// The answer to a write that had this effect on `current`, recorded where it may be
/// repeated.
fn written<T: Transaction>(
    transaction: &mut T,
    write: &Write,
    effect: Effect,
    current: Option<User>,
    revision: Revision,
    now: Timestamp,
) -> Result<WriteResult, T::Error> {
    if let Some(idempotency) = &write.idempotency {
        transaction.record(idempotency, effect.user_id(&write.change), revision, now)?;
    }
    Ok(WriteResult { user: effect.into_user(current), revision })
}

/// The answer to a write that was made before, if it was.
fn replay<T: Transaction>(
    transaction: &mut T,
    change: &Change,
    idempotency: &Idempotency,
    now: Timestamp,
) -> Result<Option<WriteResult>, T::Error> {
    let since = now.before(Idempotency::RETENTION);
    let Some(recorded) = transaction.find_recorded(&idempotency.key, since)? else { return Ok(None) };
    if recorded.payload != idempotency.payload {
        return Err(Error::RequestIdReused.into());
    }
    let user = match change {
        Change::Delete { .. } => None,
        _ => match transaction.user_at_revision(recorded.revision)? {
            Some(user) => Some(user),
            None => transaction.user_by_id(&recorded.id)?,
        },
    };
    Ok(Some(WriteResult { user, revision: recorded.revision }))
}

fn perform<T: Transaction>(transaction: &mut T, effect: &Effect, now: Timestamp) -> Result<(), T::Error> {
    match effect {
        Effect::Create(user) => transaction.put(ChangeKind::Created, user, now),
        Effect::Update(user) => transaction.put(ChangeKind::Updated, user, now),
        Effect::Delete(id) => transaction.delete(id, now),
        Effect::Nothing => Ok(()),
    }
}

impl Effect {
    fn user_id<'a>(&'a self, change: &'a Change) -> &'a UserId {
        match (self, change.target()) {
            (Self::Create(user) | Self::Update(user), _) => &user.id,
            (Self::Delete(id), _) | (Self::Nothing, Target::Id(id)) => id,
            (Self::Nothing, Target::Email(_)) => {
                unreachable!("of what may do nothing only a delete is recorded, and it names an id")
            }
        }
    }

    /// The user that is there after it, where `current` was there before.
    fn into_user(self, current: Option<User>) -> Option<User> {
        match self {
            Self::Create(user) | Self::Update(user) => Some(user),
            Self::Nothing => current,
            Self::Delete(_) => None,
        }
    }
}
