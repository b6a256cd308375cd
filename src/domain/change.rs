//! What a write asks for.

use super::{Email, Etag, Fields, Idempotency, Patch, Revision, Timestamp, User, UserId};

/// A write as a store gets it.
#[derive(Clone, Debug)]
pub struct Write {
    pub change: Change,
    /// How to know a repeat of this write again, if the caller wants that.
    pub idempotency: Option<Idempotency>,
    /// Check everything, write nothing, record nothing.
    pub validate_only: bool,
}

/// A change to one user.
#[derive(Clone, Debug)]
pub enum Change {
    /// A new user, under an id that no user has.
    Create { id: UserId, fields: Fields },
    /// The article's write: overwrite the user named by `id`, or else the one
    /// with this e-mail address, in the fields that the article's contract names.
    /// Create it where there is none, under `id` or else under `new_id`.
    Upsert { id: Option<UserId>, new_id: UserId, fields: Fields },
    /// A user from elsewhere, known by `id` or else by this e-mail address: create
    /// it where there is none, under `id` or else under `new_id`; the very same one
    /// may be there already. Without a `create_time` it is created now.
    Import { id: Option<UserId>, new_id: UserId, fields: Fields, create_time: Option<Timestamp> },
    /// New values for some fields of a user.
    Update { id: UserId, patch: Patch, etag: Option<Etag> },
    /// A user gone.
    Delete { id: UserId, etag: Option<Etag>, allow_missing: bool },
}

/// How to find the user that a change is about.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    Id(&'a UserId),
    Email(&'a Email),
}

impl Change {
    /// The user that the change is about, as the store has it.
    pub fn target(&self) -> Target<'_> {
        match self {
            Self::Create { id, .. }
            | Self::Update { id, .. }
            | Self::Delete { id, .. }
            | Self::Upsert { id: Some(id), .. }
            | Self::Import { id: Some(id), .. } => Target::Id(id),
            Self::Upsert { id: None, fields, .. } | Self::Import { id: None, fields, .. } => {
                Target::Email(&fields.email)
            }
        }
    }

    /// The id of the user, where the change names it by its id.
    pub fn id(&self) -> Option<&UserId> {
        match self.target() {
            Target::Id(id) => Some(id),
            Target::Email(_) => None,
        }
    }

    /// The e-mail address that the user would have, where the change sets one:
    /// [`super::decide()`] needs its current owner.
    pub fn email(&self) -> Option<&Email> {
        match self {
            Self::Create { fields, .. } | Self::Upsert { fields, .. } | Self::Import { fields, .. } => {
                Some(&fields.email)
            }
            Self::Update { patch, .. } => patch.email.as_ref(),
            Self::Delete { .. } => None,
        }
    }
}

/// What a write did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteResult {
    /// The user as the write left it or found it (or would leave it, with
    /// `validate_only`); `None` where it left none.
    pub user: Option<User>,
    /// The write's revision; 0 where it changed nothing.
    pub revision: Revision,
}
