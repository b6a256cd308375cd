//! Backups of live stores, and their way back.
//!
//! A backup is one `SQLite` file with the schema of the `SQLite` store, whatever kind of
//! store it was made from: users, change log, recorded requests, the store's id and its
//! revision, all of one moment. So it is checked, looked at and served without the
//! database it came from, and it goes back into either kind of store.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{OpenError, postgres, sqlite};
use crate::{
    config::{Config, StoreUrl},
    domain::Revision,
};

/// What a backup holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupSummary {
    pub users: u64,
    /// The store's last revision.
    pub revision: Revision,
}

/// Why there is no backup, or why one was not restored. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error(
        "a store in memory can be read by its own process only: use `user-service export` on its server, and \
         `user-service import`"
    )]
    Memory,
    #[error(
        "{path} belongs to the store: give the backup a name of its own, on another disk if there is one",
        path = .0.display()
    )]
    IsStore(PathBuf),
    #[error(
        "{path} is where a restore of this store writes to: give the backup another name",
        path = .0.display()
    )]
    IsRestored(PathBuf),
    #[error(
        "{path} is there already, of a store that was replaced before: move it away, or remove it",
        path = .0.display()
    )]
    IsKept(PathBuf),
    #[error("{path} is not a regular file: name a new file, or an older backup", path = .0.display())]
    NoFile(PathBuf),
    #[error(
        "{left} is there, so {path} is in use or was not closed: stop what uses it, or choose another name",
        left = left.display(), path = path.display()
    )]
    InUse { path: PathBuf, left: PathBuf },
    #[error(
        "{path}: {source}; check the disk (space, permissions, health) of the store and of the backup",
        path = path.display()
    )]
    Copy { path: PathBuf, source: rusqlite::Error },
    #[error("{path}: {source}", path = path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(
        "{path} is not a whole backup: {why}; take another one",
        path = path.display()
    )]
    Damaged { path: PathBuf, why: String },
    #[error(
        "the store {0} holds users or their history, and is left as it is: --replace restores over them, or \
         point store_url at another place"
    )]
    NotEmpty(String),
}

/// Writes what the store holds now into an empty file, and reads all of it again. The
/// store may be in use; no write waits for this. The file is not yet synced.
pub fn backup(config: &Config, into: &Path) -> Result<BackupSummary, BackupError> {
    match &config.store_url {
        StoreUrl::Memory => Err(BackupError::Memory),
        StoreUrl::Postgres(url) => postgres::backup(url, config, into),
        StoreUrl::Sqlite(path) => sqlite::backup(path, into),
    }
}

/// Whether a backup may take this name, in place of an older one.
///
/// **Invariant:** neither a file of the store nor a file that is in use is replaced.
pub fn may_be_replaced(config: &Config, name: &Path) -> Result<(), BackupError> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.into());
    if let StoreUrl::Sqlite(store) = &config.store_url
        && sqlite::files(store)
            .iter()
            .chain(&sqlite::restore_files(store))
            .any(|file| real(file) == real(name))
    {
        return Err(BackupError::IsStore(name.into()));
    }
    if let Ok(of) = fs::metadata(name)
        && !of.is_file()
    {
        return Err(BackupError::NoFile(name.into()));
    }
    // A log that is left of another file would be read as this one's.
    match sqlite::files(&real(name)).into_iter().skip(1).find(|file| file.exists()) {
        Some(left) => Err(BackupError::InUse { path: name.into(), left }),
        None => Ok(()),
    }
}

/// Puts a backup into a store that is not served: one that is new or empty, or with
/// `replace` any.
pub fn restore(config: &Config, from: &Path, replace: bool) -> Result<BackupSummary, BackupError> {
    match &config.store_url {
        StoreUrl::Memory => Err(BackupError::Memory),
        StoreUrl::Postgres(url) => postgres::restore(url, config, from, replace),
        StoreUrl::Sqlite(path) => sqlite::restore(path, from, replace),
    }
}
