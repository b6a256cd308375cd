//! The file: its lock, its schema, and the connections to it.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::columns::MIGRATIONS;
use crate::store::OpenError;

/// What makes a `SQLite` file one of ours: "usrv" in ASCII.
const APPLICATION_ID: i32 = 0x7573_7276;

/// Our own lock keeps other services out, so this is for tools that look in.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a checkpoint waits for readers while writes wait for it.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_millis(5);

/// The size of the write-ahead log after a restart under load, in bytes.
const MAX_IDLE_LOG_BYTES: i64 = 8 << 20;

/// Room for every statement that a connection uses.
const CACHED_STATEMENTS: usize = 32;

/// The absolute path of a file, so that no name is read as a `file:` URI, and a change of
/// the working directory changes nothing.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, OpenError> {
    if path.is_dir() {
        return Err(OpenError::Directory(path.into()));
    }
    std::path::absolute(path).map_err(|source| OpenError::File { path: path.into(), source })
}

/// How long a file that is in use is tried for, and how often: a process that ends, or one
/// that is just started by the last user, lets go of the lock a moment later.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
const LOCK_INTERVAL: Duration = Duration::from_millis(20);

/// Makes this process the only one on the file, for as long as the result lives.
pub(super) fn lock(path: &Path) -> Result<File, OpenError> {
    let lock_path = beside(path, ".lock");
    let lock = private(&lock_path).map_err(|source| OpenError::File { path: lock_path.clone(), source })?;
    let until = Instant::now() + LOCK_TIMEOUT;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) if Instant::now() < until => thread::sleep(LOCK_INTERVAL),
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(path.into())),
            Err(TryLockError::Error(source)) => return Err(OpenError::File { path: lock_path, source }),
        }
    }
}

/// Opens or makes a file with access for its owner only, because it holds personal data.
pub(super) fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Takes away all other users' rights to a file: one that was copied or restored has those that
/// files have by default.
fn take_from_others(file: &File) -> io::Result<()> {
    let mode = file.metadata()?.permissions().mode();
    let others = mode & 0o007;
    if others == 0 {
        return Ok(());
    }
    match file.set_permissions(Permissions::from_mode(mode - others)) {
        Ok(()) => tracing::warn!("everybody could read the store's file; only its owner and group may now"),
        Err(error) => tracing::warn!(%error, "everybody may read the store's file: chmod o= it"),
    }
    Ok(())
}

/// The one connection that writes, to a file with the newest schema.
pub(super) fn open_writer(path: &Path) -> Result<Connection, OpenError> {
    private(path)
        .and_then(|file| take_from_others(&file))
        .map_err(|source| OpenError::File { path: path.into(), source })?;
    let failed = |source| OpenError::sqlite(path, source);
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failed)?;
    let version = version(&connection, path)?;
    durable(&connection).map_err(failed)?;
    migrate(&mut connection, version).map_err(failed)?;
    // What a crash left in the log may never have been synced. It is made durable
    // before its first read, by hand where a reader of another program holds up the
    // checkpoint.
    if checkpoint(&connection, "TRUNCATE").map_err(failed)?.is_busy {
        let log = beside(path, "-wal");
        File::open(&log)
            .and_then(|log| log.sync_all())
            .map_err(|source| OpenError::File { path: log, source })?;
    }
    Ok(connection)
}

/// The name of a file that belongs to the store's.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// A connection that cannot write.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

pub(super) fn connect(path: &Path, mode: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    Ok(connection)
}

/// The schema version of a file that is ours, 0 for an empty one. Changes nothing.
pub(super) fn version(connection: &Connection, path: &Path) -> Result<usize, OpenError> {
    let facts = connection.query_row(
        "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema)
         FROM pragma_application_id, pragma_user_version",
        (),
        |row| Ok((row.get::<_, i32>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)),
    );
    match facts {
        Ok((0, 0, 0)) => Ok(0),
        Ok((APPLICATION_ID, version, _)) => {
            let found = usize::try_from(version).unwrap_or(usize::MAX);
            let known = MIGRATIONS.len();
            if found <= known { Ok(found) } else { Err(OpenError::Newer { path: path.into(), found, known }) }
        }
        Ok(_) => Err(OpenError::Foreign(path.into())),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
            Err(OpenError::Foreign(path.into()))
        }
        Err(source) => Err(OpenError::sqlite(path, source)),
    }
}

/// Makes every commit survive a loss of power, at the price of one sync of the log.
fn durable(connection: &Connection) -> rusqlite::Result<()> {
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", (), |row| row.get(0))?;
    if mode != "wal" {
        return Err(rusqlite::Error::InvalidPath("the file system cannot hold a write-ahead log".into()));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    // The writer checkpoints between batches, not within a commit.
    connection.query_row("PRAGMA wal_autocheckpoint = 0", (), |_| Ok(()))?;
    connection.query_row(&format!("PRAGMA journal_size_limit = {MAX_IDLE_LOG_BYTES}"), (), |_| Ok(()))?;
    // Deleted rows are overwritten in the file.
    connection.query_row("PRAGMA secure_delete = ON", (), |_| Ok(()))
}

/// All steps in one transaction: a crash leaves the old version or the new one.
pub(super) fn migrate(connection: &mut Connection, from: usize) -> rusqlite::Result<()> {
    if from == MIGRATIONS.len() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in &MIGRATIONS[from..] {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", MIGRATIONS.len().cast_signed())?;
    transaction.commit()?;
    tracing::info!(from, to = MIGRATIONS.len(), "the store's schema was migrated");
    Ok(())
}

/// What a checkpoint left.
pub(super) struct Log {
    /// A reader or a writer of another program held it up.
    pub is_busy: bool,
    /// Pages in the log.
    pub pages: i64,
    /// How many of them are in the file too.
    pub moved: i64,
}

/// Moves pages from the log to the file, or with `NOOP` only counts them.
pub(super) fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<Log> {
    connection
        .prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?
        .query_row((), |row| Ok(Log { is_busy: row.get(0)?, pages: row.get(1)?, moved: row.get(2)? }))
}

/// Moves the whole log to the file and gives its room back, unless that is held up.
pub(super) fn empty_log(connection: &Connection) -> rusqlite::Result<Log> {
    with_busy_timeout(connection, CHECKPOINT_TIMEOUT, || checkpoint(connection, "TRUNCATE"))
}

/// Takes the lock that a write needs, waiting for so long, and lets it go.
pub(super) fn try_write_lock(connection: &Connection, timeout: Duration) -> rusqlite::Result<()> {
    with_busy_timeout(connection, timeout, || connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK"))
}

fn with_busy_timeout<T>(
    connection: &Connection,
    timeout: Duration,
    work: impl FnOnce() -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.busy_timeout(timeout)?;
    let done = work();
    connection.busy_timeout(BUSY_TIMEOUT)?;
    done
}

/// Makes deletions of all changes to users before their last deletion; how many. They are
/// in the file or its log still where the checkpoint was busy.
pub(super) fn purge(connection: &Connection) -> rusqlite::Result<(u64, Log)> {
    let erased = connection.execute(
        "UPDATE changes SET kind = 3, after_image = NULL
         FROM (SELECT id, max(revision) AS last FROM changes WHERE kind = 3 GROUP BY id) gone
         WHERE changes.id = gone.id AND changes.revision < gone.last AND changes.kind <> 3",
        (),
    )?;
    // Pages may keep remains of rows that have moved.
    connection.execute_batch("VACUUM")?;
    Ok((erased as u64, checkpoint(connection, "TRUNCATE")?))
}
