//! Users and their rules.
//!
//! Knows neither the wire nor a database. What comes in is parsed into types
//! that cannot hold a bad value ([`Name`], [`Email`], [`Age`], [`UserId`]); what
//! is to be written is a [`Change`]; [`decide()`] says what a change does to what
//! is stored, and every store asks it.

mod call;
mod change;
mod decide;
mod email;
mod error;
mod log;
mod page;
mod resume;
mod store;
mod user;

pub use call::{Caller, Deadline, Idempotency, RequestId};
pub use change::{Change, Fields, Patch, Target, Write, Written};
pub use decide::{Effect, decide};
pub use email::Email;
pub use error::{Error, Resource, Violation};
pub use log::{Entry, Event, Point, Position, StoreId};
pub use page::{MAX_PAGE_SIZE, PageSize, PageToken};
pub use resume::{Progress, ResumeToken};
pub use store::{Page, Probe, Store, UserKey};
pub use user::{Age, Etag, Name, Revision, Timestamp, User, UserId};
