//! The connections to the file: how they are opened, and the checkpoints of its
//! write-ahead log.
//!
//! **Invariant:** a commit of the writer is synced before it returns.

use std::{fs::File, path::Path, time::Duration};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{file, schema};
use crate::store::OpenError;

/// Our own lock keeps other services out, so this is for tools that look in.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a checkpoint waits for readers while writes wait for it.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_millis(5);

/// The size of the write-ahead log after a restart under load, in bytes.
const MAX_IDLE_LOG_BYTES: i64 = 8 << 20;

/// Room for every statement that a connection uses.
const CACHED_STATEMENTS: usize = 32;

/// The one connection that writes, to a file with the newest schema.
pub(super) fn open_writer(path: &Path) -> Result<Connection, OpenError> {
    let failed_file = |source| OpenError::File { path: path.into(), source };
    // Closed before SQLite opens it: a later close would give up the locks of SQLite as well.
    drop(file::private(path).map_err(failed_file)?);
    let failed = |source| OpenError::sqlite(path, source);
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failed)?;
    let version = schema::version(&connection, path)?;
    // Ours, or empty.
    file::take_from_others(path).map_err(failed_file)?;
    durable(&connection).map_err(failed)?;
    schema::migrate(&mut connection, version).map_err(failed)?;
    // What a crash left in the log may never have been synced. It is made durable
    // before its first read, by hand where a reader of another program or a full disk
    // holds up the checkpoint.
    let moved = checkpoint(&connection, "TRUNCATE").map(|log| !log.is_busy);
    if !moved.or_else(|error| if is_full(&error) { Ok(false) } else { Err(failed(error)) })? {
        let log = file::beside(path, "-wal");
        File::open(&log)
            .and_then(|log| log.sync_all())
            .map_err(|source| OpenError::File { path: log, source })?;
    }
    Ok(connection)
}

/// The connection for checkpoints next to commits, to a file that the writer has open.
pub(super) fn open_checkpointer(path: &Path) -> rusqlite::Result<Connection> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    durable(&connection)?;
    Ok(connection)
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

/// Whether an error means that the disk is full.
pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
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
