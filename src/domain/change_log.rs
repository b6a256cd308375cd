//! The change log: what happened to users, in the order in which it happened.

use super::{Revision, Timestamp, User, UserId};

/// One entry of the change log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub position: LogPosition,
    pub event: Event,
}

/// What a write did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The user as it was created.
    Created(User),
    /// The user as the write left it.
    Updated(User),
    Deleted(UserId),
}

impl Event {
    /// The user that the write left, if it left one.
    pub fn user(&self) -> Option<&User> {
        match self {
            Self::Created(user) | Self::Updated(user) => Some(user),
            Self::Deleted(_) => None,
        }
    }
}

/// A point in the history of one store: a revision, and when it was made. The
/// second tells histories apart that were one until a backup was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPosition {
    /// 0 where nothing was written yet.
    pub revision: Revision,
    pub time: Timestamp,
}

impl LogPosition {
    /// Before the first write.
    pub const BEGINNING: Self = Self { revision: 0, time: Timestamp::from_micros(0) };
}

/// A random id, made with the store's schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreId(pub [u8; 16]);

/// How far a store has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogHead {
    pub store: StoreId,
    /// The last write.
    pub newest: LogPosition,
}
