//! Connections that only read.
//!
//! To begin and end a read takes locks, which are system calls and cost about as much
//! as finding a user. So a connection stays within its transaction, and later reads
//! there see the same state, as long as it is the newest: until the next commit begins.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use rusqlite::{Connection, ErrorCode};

use super::{
    commit_epoch::{CommitEpoch, StableEpoch},
    connections,
    file::OpenFiles,
};
use crate::{domain::Error, store::CLOSED};

/// How many idle connections are kept.
const MAX_IDLE_CONNECTIONS: usize = 16;

/// Why a store's files cannot be used any more.
pub(super) const REPLACED: Error = Error::Unavailable("the store's file was removed or replaced");

pub(super) struct Readers {
    path: PathBuf,
    /// Behind the path when the store was opened.
    files: OpenFiles,
    /// Held for the time of each read.
    open: RwLock<bool>,
    idle: Mutex<Vec<Reader>>,
    commit_epoch: Arc<CommitEpoch>,
}

struct Reader {
    connection: Connection,
    /// Since when its transaction is open.
    since: Option<StableEpoch>,
}

impl Readers {
    pub fn new(path: PathBuf, commit_epoch: Arc<CommitEpoch>) -> Self {
        let files = OpenFiles::of(&path);
        Self { path, files, open: RwLock::new(true), idle: Mutex::default(), commit_epoch }
    }

    /// Runs `read` on one connection, in one snapshot, which holds every
    /// write that was acknowledged before.
    pub fn with<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        if !*open {
            return Err(CLOSED);
        }
        let mut reader = match self.with_idle(Vec::pop) {
            Some(reader) => reader,
            // It would read another store.
            None if !self.files.are_in_place() => return Err(REPLACED),
            None => Reader { connection: connections::open_reader(&self.path).map_err(failed)?, since: None },
        };
        // A connection that failed is not used again.
        reader.refresh_snapshot(self.commit_epoch.stable()).map_err(failed)?;
        let answer = read(&reader.connection).map_err(failed)?;
        if !reader.is_current(self.commit_epoch.stable()) {
            reader.end().map_err(failed)?;
        }
        self.with_idle(|idle| {
            if idle.len() < MAX_IDLE_CONNECTIONS {
                idle.push(reader);
            }
        });
        Ok(answer)
    }

    /// Runs the writer's work other than commits, while no connection has a snapshot open.
    /// An open one would block a checkpoint, and the write-ahead log could not restart.
    pub fn with_snapshots_closed<T>(&self, work: impl FnOnce() -> T) -> T {
        let _unstable = self.commit_epoch.begin();
        // One that does not end is given up with its connection.
        self.with_idle(|idle| idle.retain_mut(|reader| reader.end().is_ok()));
        work()
    }

    /// Waits for reads that are under way. `SQLite` moves the log into the file when the
    /// last connection ends, which must be the writer's.
    pub fn close(&self) {
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = false;
        self.with_idle(Vec::clear);
    }

    fn with_idle<T>(&self, use_idle: impl FnOnce(&mut Vec<Reader>) -> T) -> T {
        use_idle(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Reader {
    /// Begins a new snapshot unless the current one is the newest. `epoch` was read before.
    fn refresh_snapshot(&mut self, epoch: Option<StableEpoch>) -> rusqlite::Result<()> {
        if self.is_current(epoch) {
            return Ok(());
        }
        self.end()?;
        self.connection.prepare_cached("BEGIN")?.execute(())?;
        // While a commit is under way it cannot be known which side of it this is on.
        self.since = epoch;
        Ok(())
    }

    fn is_current(&self, epoch: Option<StableEpoch>) -> bool {
        epoch.is_some() && self.since == epoch
    }

    fn end(&mut self) -> rusqlite::Result<()> {
        self.since = None;
        if !self.connection.is_autocommit() {
            self.connection.prepare_cached("COMMIT")?.execute(())?;
        }
        Ok(())
    }
}

fn failed(error: rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => {
            Error::Unavailable("the disk failed a read")
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Error::Unavailable("another program holds the file")
        }
        _ => Error::Internal(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::*;
    use crate::store::sqlite::rows;

    #[test]
    fn an_end_waits_for_whoever_reads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.db");
        drop(connections::open_writer(&path).unwrap());
        let readers = &Readers::new(path, Arc::default());
        let (reading, begun) = mpsc::channel();
        let (go_on, told) = mpsc::channel::<()>();
        let (ended, end) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(move || {
                readers.with(|_| {
                    reading.send(()).unwrap();
                    told.recv().unwrap();
                    Ok(())
                })
            });
            begun.recv().unwrap();
            scope.spawn(move || {
                readers.close();
                ended.send(()).unwrap();
            });
            assert!(end.recv_timeout(Duration::from_millis(100)).is_err(), "it reads still");
            go_on.send(()).unwrap();
            end.recv().unwrap();
        });
        assert!(matches!(readers.with(rows::current_revision), Err(Error::Unavailable(_))));
    }

    #[test]
    fn a_state_is_kept_until_a_commit_begins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.db");
        let writer = connections::open_writer(&path).unwrap();
        let commit_epoch = Arc::<CommitEpoch>::default();
        let readers = Readers::new(path, Arc::clone(&commit_epoch));
        let write = |revision: i64| writer.execute("UPDATE meta SET revision = ?1", (revision,)).unwrap();
        let seen = || readers.with(rows::current_revision).unwrap();
        assert_eq!(seen(), 0);
        write(1);
        assert_eq!(seen(), 0, "the snapshot was not refreshed");
        let commit = commit_epoch.begin();
        assert_eq!(seen(), 1);
        write(2);
        assert_eq!(seen(), 2, "it may be public at any time now");
        drop(commit);
        write(3);
        assert_eq!(seen(), 3, "what was seen while a commit was under way is not kept");
        write(4);
        assert_eq!(seen(), 3);
        readers.with_snapshots_closed(|| {
            assert_eq!(seen(), 4);
            write(5);
            assert_eq!(seen(), 5);
        });
        let alone = "PRAGMA wal_checkpoint(TRUNCATE)";
        assert_eq!(writer.query_row(alone, (), |row| row.get(0)), Ok(0), "no reader holds it up");
        let mut commit = None;
        let overtaken = |connection: &Connection| {
            let seen = rows::current_revision(connection);
            commit = Some(commit_epoch.begin());
            seen
        };
        write(6);
        assert_eq!(readers.with(overtaken).unwrap(), 6);
        drop(commit);
        assert_eq!(writer.query_row(alone, (), |row| row.get(0)), Ok(0), "nor who was overtaken");
    }
}
