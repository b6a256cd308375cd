//! What the domain asks of a store.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Deadline, Email, Entry, Error, LogHead, PageSize, Revision, User, UserId, Write, WriteResult};

/// What a user is looked up by.
#[derive(Clone, Debug)]
pub enum UserKey {
    Id(UserId),
    Email(Email),
}

impl UserKey {
    /// The id, where the user is looked up by it.
    pub fn id(&self) -> Option<&UserId> {
        match self {
            Self::Id(id) => Some(id),
            Self::Email(_) => None,
        }
    }
}

/// Some users, ordered by id.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub users: Vec<User>,
    /// Whether there are users after the last one.
    pub more: bool,
}

/// What a store can do right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreHealth {
    pub reads: bool,
    pub writes: bool,
}

/// A place that keeps users.
///
/// Every store keeps a random store id, made with the schema, and one revision
/// counter in commit order. Every write puts the user's row, a row of the change
/// log and the idempotency row into one transaction, and is answered only when
/// that is durable. A read that begins after a write was answered sees it.
///
/// A write that has begun is finished whole even when the returned future is
/// dropped. No method of an open store begins work after its deadline
/// ([`Error::DeadlineExceeded`]): the decorator that `store::open` puts around each checks it.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Returns the user if it is cached, and never a version older than [`Self::get`]
    /// would return. `None` means "not cached", not "does not exist".
    fn get_cached(&self, _id: &UserId) -> Option<Arc<User>> {
        None
    }

    /// The user with this key; shared, because the store may cache it.
    async fn get(&self, key: &UserKey, deadline: Deadline) -> Result<Option<Arc<User>>, Error>;

    /// The users with these ids, position by position, all from one snapshot.
    async fn batch_get(&self, ids: &[UserId], deadline: Deadline) -> Result<Vec<Option<User>>, Error>;

    /// The first users after an id (or from the first one on), ordered by id.
    async fn list(&self, after: Option<&UserId>, size: PageSize, deadline: Deadline) -> Result<Page, Error>;

    /// Applies one write, as [`super::decide()`] says.
    ///
    /// A repeat of a recorded write (the same [`super::Idempotency`]) writes
    /// nothing and answers with the user as that write left it while the change
    /// log still holds it, and with the user as it is now after that; another
    /// payload under the same key is [`Error::RequestIdReused`]. This is checked
    /// before anything else. Only successes are recorded, and nothing with
    /// `validate_only`.
    async fn write(&self, write: Write, deadline: Deadline) -> Result<WriteResult, Error>;

    /// How far the store has come; not less far than any read that was answered
    /// before.
    async fn log_head(&self, deadline: Deadline) -> Result<LogHead, Error>;

    /// The first entries of the change log after a revision, in their order, at
    /// most `limit` of them. Revisions have no gaps, and the log is cleared from its
    /// beginning: where the first entry is not the next one, the entries between were
    /// pruned.
    async fn changes(&self, after: Revision, limit: usize, deadline: Deadline) -> Result<Vec<Entry>, Error>;

    /// Resolves when there may be an entry after a revision: immediately where the
    /// store knows of one, and where others write to it as well, a little later
    /// in any case.
    async fn changed(&self, after: Revision);

    /// What the store can do right now; found out afresh, within a second or so.
    async fn probe(&self) -> StoreHealth;

    /// Finishes what was begun and closes the store. Later calls fail.
    async fn close(&self);
}
