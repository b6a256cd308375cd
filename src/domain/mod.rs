//! Users and their rules.
//!
//! **Invariant:** it knows neither gRPC nor a database. Input is parsed into types that
//! cannot hold a bad value ([`Name`], [`Email`], [`Age`], [`UserId`]). A write is a
//! [`Change`], and every store asks [`decide()`] for its effect.

mod change;
mod change_log;
mod deadline;
mod decide;
mod email;
mod error;
mod fields;
mod idempotency;
mod page;
mod resume;
mod store;
mod user;

pub use change::{Change, Target, Write, WriteResult};
pub use change_log::{Entry, Event, LogHead, LogPosition, StoreId};
pub use deadline::Deadline;
pub use decide::{Effect, decide};
pub use email::Email;
pub use error::{Error, UniqueKey, Violation};
pub use fields::{Age, Fields, Name, Patch};
pub use idempotency::{Caller, Idempotency, RequestId};
pub use page::{MAX_PAGE_SIZE, PageSize, PageToken};
pub use resume::{Progress, ResumeToken};
pub use store::{Page, Store, StoreHealth, UserKey};
pub use user::{Etag, Revision, Timestamp, User, UserId};
