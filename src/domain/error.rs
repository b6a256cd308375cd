//! Why a call failed, in the domain's words. What callers get to see is made of
//! it in one place, in `service`.

use std::time::Duration;

/// A field that holds what it may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The path of the field in the request, such as `user.email`.
    pub field: String,
    /// What the field must be. Never holds what it was.
    pub description: String,
}

/// What a user is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UniqueKey {
    Id,
    Email,
}

/// Why a call failed. No variant holds personal data, but for the source of
/// [`Error::Internal`], which is for the log alone.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The violations of the request, never only the first: those that an error lists,
    /// and the number of all.
    #[error("the request breaks {total} rules")]
    Invalid { listed: Vec<Violation>, total: usize },
    #[error("the request id was used for another payload")]
    RequestIdReused,
    #[error("no such user")]
    NotFound(UniqueKey),
    #[error("there is such a user already")]
    AlreadyExists(UniqueKey),
    #[error("the user has changed since the etag was read")]
    EtagMismatch,
    /// The change log does not go back that far, or is another one.
    #[error("the change log does not hold what follows")]
    ResumeTokenExpired,
    /// Nothing was begun in time, so nothing was applied.
    #[error("the deadline passed before the work began")]
    DeadlineExceeded,
    /// The write could not be durable in time, or the queue is full; nothing was applied.
    /// After the delay there should be room for it.
    #[error("the store is overloaded")]
    Overloaded { retry_delay: Duration },
    /// The store cannot do this now; nothing was applied. The text is for the log.
    #[error("the store is unavailable: {0}")]
    Unavailable(&'static str),
    /// Whether the write was applied could not be found out.
    #[error("the outcome of the write is unknown")]
    OutcomeUnknown,
    /// A constraint, a trigger or a policy that the database's owner added refuses the
    /// row; nothing was applied. The text names that rule, for the log.
    #[error("a rule of the database refuses the row: {0}")]
    RefusedByStore(String),
    /// A bug or a broken store. The source is for the log alone.
    #[error("internal error")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}
