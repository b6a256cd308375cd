//! Where users are kept: in memory, in one `SQLite` file, or in `PostgreSQL`.
//!
//! All implement [`crate::domain::Store`] and pass one suite of tests (`tests/store`).
//! The effect of a write is implemented once, in [`apply`].
//!
//! **Invariant:** a write is answered after its commit is durable. A store deliberately
//! knows neither statuses nor calls.

mod after_image;
mod apply;
mod backup;
mod error;
mod forecast;
mod heartbeat;
mod instrumented;
mod linger;
mod memory;
mod metrics;
mod moving_average;
mod postgres;
mod queue;
mod read_forecast;
mod read_queue;
mod sqlite;
mod writer_loop;

use std::sync::Arc;

pub use backup::{BackupError, BackupSummary, backup, may_be_replaced, restore};
pub use error::OpenError;
pub use metrics::{BATCH_SIZE, OPERATION_DURATION, QUEUE_DEPTH, WRITABLE};

use self::instrumented::Instrumented;
use crate::{
    config::{Config, PostgresUrl, StoreUrl},
    domain::{Error, Store},
};

const CLOSED: Error = Error::Unavailable("the store is closed");

/// Opens the store that `config` names; makes it and brings its schema up to
/// date where needed. Blocks, so it is not for an async thread. Metrics are
/// recorded with the recorder that is installed when this is called.
pub fn open(config: &Config) -> Result<Arc<dyn Store>, OpenError> {
    match &config.store_url {
        StoreUrl::Memory => {
            tracing::warn!("the store is in memory: every user is gone when the process ends");
            let store = memory::MemoryStore::new(config);
            Ok(Arc::new(Instrumented::new(store, "memory", Vec::new())))
        }
        StoreUrl::Postgres(url) => {
            let store = postgres::PostgresStore::open(url, config)?;
            Ok(Arc::new(Instrumented::new(store, "postgresql", instrumented::place(url))))
        }
        StoreUrl::Sqlite(path) => {
            let store = sqlite::SqliteStore::open(path, config)?;
            // Its path says nothing to a reader of traces of many instances.
            Ok(Arc::new(Instrumented::new(store, "sqlite", Vec::new())))
        }
    }
}

/// Makes the store that `config` names and brings its schema up to date, and
/// nothing else.
pub fn migrate(config: &Config) -> Result<(), OpenError> {
    match &config.store_url {
        StoreUrl::Memory => Ok(()),
        StoreUrl::Postgres(url) => postgres::migrate(url, config, &[]),
        StoreUrl::Sqlite(path) => sqlite::migrate(path),
    }
}

/// The same on `PostgreSQL` with the steps of a release to come, while this one
/// serves: how it is tested that they get along.
pub fn migrate_further(url: &PostgresUrl, config: &Config, steps: &[&str]) -> Result<(), OpenError> {
    postgres::migrate(url, config, steps)
}

/// Erases what the change log says of users who were deleted since, and returns in
/// how many changes. Every change of a deleted user becomes a deletion: revisions stay
/// without a gap, and a watch resumed from an older token reaches the same users.
pub fn purge(config: &Config) -> Result<u64, OpenError> {
    match &config.store_url {
        StoreUrl::Memory => Err(OpenError::Memory),
        StoreUrl::Postgres(url) => postgres::purge(url, config),
        StoreUrl::Sqlite(path) => sqlite::purge(path),
    }
}
