//! Why a store does not open.

use std::{
    io,
    path::{Path, PathBuf},
};

use rusqlite::ErrorCode;

use super::postgres;

/// Why a store does not open. Each text names the file and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "the store {path} is in use by another process ({path}.lock is locked): stop that process, or give \
         this one a store of its own with store_url",
        path = .0.display()
    )]
    InUse(PathBuf),
    #[error(
        "{path} is not a user-service store, and is left as it is: point store_url at another path, or move \
         the file away",
        path = .0.display()
    )]
    Foreign(PathBuf),
    #[error(
        "the store {path} has schema version {found}, and this release knows versions up to {known}: run the \
         release that wrote it, or a newer one",
        path = path.display()
    )]
    Newer { path: PathBuf, found: usize, known: usize },
    #[error("there is no store {path}: point store_url at the one that the service uses", path = .0.display())]
    NoStore(PathBuf),
    #[error("a store in memory is gone with its process, and has nothing to purge")]
    Memory,
    #[error(
        "the store {path} is a directory: name a file in it, such as {path}/user-service.db",
        path = .0.display()
    )]
    Directory(PathBuf),
    #[error("the store {path} is not a regular file, and is left as it is: name another one", path = .0.display())]
    NotAFile(PathBuf),
    #[error(
        "the store {path} is one file with several names (hard links), and services by two of them would lose \
         each other's writes: remove all names but one (`find -samefile {path}` finds them)",
        path = .0.display()
    )]
    ManyNames(PathBuf),
    #[error(
        "cannot open {path}: {source}; the directory must exist and be writable for the user that the service \
         runs as",
        path = path.display()
    )]
    File { path: PathBuf, source: io::Error },
    #[error(
        "cannot open the store {path}: {source}; check the disk (space, permissions, health), or restore the \
         file from a backup",
        path = path.display()
    )]
    Sqlite { path: PathBuf, source: rusqlite::Error },
    #[error(
        "another program holds the store {path}: end it (`fuser {path}` names it), or let it finish, and try \
         again",
        path = .0.display()
    )]
    Held(PathBuf),
    #[error(
        "deleted users are erased from the store {path}, but not yet from its files, since another program \
         reads it: end it (`fuser {path}` names it), or let it finish, and purge again",
        path = .0.display()
    )]
    NotErased(PathBuf),
    #[error(
        "cannot open the store {place}: {source}; check the address, the login and the network, and that the \
         database takes writes"
    )]
    Postgres { place: String, source: postgres::ConnectError },
    #[error(
        "the store {place} has schema version {found}, and this release knows versions up to {known}: run the \
         release that wrote it, or a newer one"
    )]
    NewerSchema { place: String, found: usize, known: usize },
    #[error(
        "the database {place} has the encoding {encoding}, which cannot hold every name: make one with \
         `createdb --encoding=UTF8 --locale=C --template=template0 NAME`, and point store_url at it"
    )]
    Encoding { place: String, encoding: String },
    #[error(
        "the login of the store {place} has no {missing}: have the owner of the schema run `GRANT USAGE ON \
         SCHEMA user_service TO login` and `GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA \
         user_service TO login`"
    )]
    NotGranted { place: String, missing: String },
    #[error(
        "the login of the store {0} has session_replication_role = replica, so that addresses of users are not \
         kept unique: run `ALTER ROLE login RESET session_replication_role`"
    )]
    TriggersOff(String),
    #[error(
        "the schema of the store {0} is not there or not up to date, and this login may not change it: run \
         `user-service migrate` with one that may"
    )]
    NoRights(String),
    #[error("the database {0} holds no store: point store_url at the one that the service uses")]
    NoSchema(String),
    #[error(
        "the schema of the store {0} could not be brought up to date: others held its tables all the time; end \
         long transactions (pg_stat_activity shows them), or try again when they are over"
    )]
    Busy(String),
    #[error(
        "the database {0} has something else in its schema user_service, which is left as it is: point \
         store_url at another database"
    )]
    ForeignSchema(String),
    #[error(
        "the certificates for the database will not do: {0}; store_ca_file, store_cert_file and store_key_file are in PEM"
    )]
    Certificates(String),
    #[error("cannot start a thread for the store: {0}; raise the limit of processes (ulimit -u, pids.max)")]
    Thread(io::Error),
}

impl OpenError {
    /// Why `SQLite` failed on this file.
    pub(super) fn sqlite(path: &Path, source: rusqlite::Error) -> Self {
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Held(path.into()),
            _ => Self::Sqlite { path: path.into(), source },
        }
    }
}
