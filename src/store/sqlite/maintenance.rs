//! The writer's work between batches: checkpoints, pruning, and probing whether a full
//! disk has room again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode};

use super::{
    connections::{self, Log},
    readers::Readers,
    write_state::{SharedWriteState, WriteState},
};
use crate::{
    config::Config,
    domain::Idempotency,
    store::{
        heartbeat::TRY_INTERVAL,
        queue::WriteReceiver,
        writer_loop::{PRUNE_INTERVAL, cutoff_micros},
    },
    util::fault_point::fault_point,
};

/// Pages in the log from which on it is moved into the file (4 MiB).
const CHECKPOINT_PAGES: i64 = 1_000;

/// Writes wait while a checkpoint syncs the log and the file. One that takes longer than
/// this is made less often: it may take one part in so many of the time.
const QUICK_CHECKPOINT: Duration = Duration::from_millis(50);
const CHECKPOINT_SHARE: u32 = 20;

/// Pages in the log from which on it is moved however long that takes (64 MiB).
const MAX_LOG_PAGES: i64 = 16_000;

/// Rows that are cleared away in one transaction: more than a batch adds, so that
/// clearing keeps up, and few enough that the wait delays no write noticeably.
const PRUNE_BATCH_ROWS: usize = 512;

/// How long a try to write waits for a lock; longer than a checkpoint of another program
/// holds it, as a rule.
const TRY_TIMEOUT: Duration = Duration::from_millis(200);

/// How often the write-ahead log is emptied, as far as no reader needs it. Then the file
/// alone holds everything, and nothing that was erased.
const TRUNCATE_INTERVAL: Duration = Duration::from_secs(10);

/// Prunes old changes by revision, so that the log loses its oldest entries and has no
/// holes. The last one stays, because it is the position of the watches. One bound,
/// not two: `SQLite` would look for rows by the one and read them all for the other.
const PRUNE_CHANGES: &str = "DELETE FROM changes WHERE revision <= min(
    (SELECT revision FROM meta) - 1,
    (SELECT max(revision) FROM (SELECT revision, time FROM changes ORDER BY revision LIMIT ?2)
     WHERE time < ?1 OR revision <= (SELECT revision FROM meta) - ?3))";

pub(super) struct Maintenance {
    change_log_retention: Duration,
    change_log_rows: usize,
    prune_at: Instant,
    truncate_at: Instant,
    try_at: Instant,
    /// What the last checkpoint took, and when a slow disk may have the next one.
    checkpoint_took: Duration,
    checkpoint_at: Instant,
    readers: Arc<Readers>,
}

impl Maintenance {
    pub fn new(config: &Config, readers: Arc<Readers>) -> Self {
        let now = Instant::now();
        let Config { change_log_retention, change_log_rows, .. } = *config;
        Self {
            change_log_retention,
            change_log_rows,
            prune_at: now,
            truncate_at: now + TRUNCATE_INTERVAL,
            try_at: now + TRY_INTERVAL,
            checkpoint_took: Duration::ZERO,
            checkpoint_at: now,
            readers,
        }
    }

    /// When [`Self::run`] has something to do at the latest.
    pub fn due(&self) -> Instant {
        self.prune_at.min(self.truncate_at).min(self.try_at)
    }

    pub fn run(
        &mut self,
        connection: &Connection,
        write_state: &SharedWriteState,
        receiver: &WriteReceiver,
    ) -> rusqlite::Result<()> {
        let now = Instant::now();
        if now >= self.try_at {
            self.try_at = now + TRY_INTERVAL;
            try_write(connection, write_state)?;
        }
        if write_state.get() != WriteState::Writable {
            self.prune_at = self.prune_at.max(now + TRY_INTERVAL);
            self.truncate_at = self.truncate_at.max(now + TRY_INTERVAL);
            return Ok(());
        }
        if now >= self.prune_at {
            self.prune_at = now + PRUNE_INTERVAL;
            if !self.readers.with_snapshots_closed(|| self.prune(connection))? {
                self.prune_at = now;
            }
        }
        let log = connections::checkpoint(connection, "NOOP")?;
        let unmoved = log.pages - log.moved;
        let may_take_time = now >= self.checkpoint_at || receiver.len() == 0;
        if now >= self.truncate_at && may_take_time {
            self.truncate_at = now + TRUNCATE_INTERVAL;
            if log.pages > 0 {
                self.checkpoint(receiver, || connections::empty_log(connection))?;
            }
        } else if unmoved >= CHECKPOINT_PAGES && may_take_time || unmoved >= MAX_LOG_PAGES {
            self.checkpoint(receiver, || connections::checkpoint(connection, "PASSIVE"))?;
        }
        Ok(())
    }

    fn checkpoint(
        &mut self,
        receiver: &WriteReceiver,
        work: impl FnOnce() -> rusqlite::Result<Log>,
    ) -> rusqlite::Result<()> {
        let began = Instant::now();
        let done = receiver.busy(self.checkpoint_took, || self.readers.with_snapshots_closed(work));
        self.checkpoint_took = began.elapsed();
        if self.checkpoint_took > QUICK_CHECKPOINT {
            self.checkpoint_at = Instant::now() + self.checkpoint_took * CHECKPOINT_SHARE;
        }
        match done {
            // Then the log goes on growing. Where that fails too, a commit finds out.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => Ok(()),
            done => done.map(drop),
        }
    }

    /// Takes one bite of each kind of old row; whether that was all of them.
    fn prune(&self, connection: &Connection) -> rusqlite::Result<bool> {
        fault_point();
        let requests = connection
            .prepare_cached(
                "DELETE FROM idempotency WHERE key IN
                     (SELECT key FROM idempotency WHERE time < ?1 ORDER BY time LIMIT ?2)",
            )?
            .execute((cutoff_micros(Idempotency::RETENTION), PRUNE_BATCH_ROWS.cast_signed()))?;
        let changes = connection.prepare_cached(PRUNE_CHANGES)?.execute((
            cutoff_micros(self.change_log_retention),
            PRUNE_BATCH_ROWS.cast_signed(),
            self.change_log_rows.cast_signed(),
        ))?;
        Ok(requests < PRUNE_BATCH_ROWS && changes < PRUNE_BATCH_ROWS)
    }
}

/// Finds out whether a write is possible, where that is not known.
fn try_write(connection: &Connection, write_state: &SharedWriteState) -> rusqlite::Result<()> {
    match write_state.get() {
        // Nothing is written: an idle store costs no sync, and a replica of it nothing.
        WriteState::Writable | WriteState::Locked if write_state.is_try_due() => {
            connections::try_write_lock(connection, TRY_TIMEOUT)?;
        }
        // It must change a value: a page overwritten with the same bytes never reaches the disk.
        WriteState::DiskFull => {
            connection.prepare_cached("UPDATE meta SET probes = probes + 1")?.execute(())?;
        }
        _ => return Ok(()),
    }
    write_state.wrote();
    Ok(())
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;
    use crate::domain::Timestamp;

    /// The steps that clearing takes in a log of so many changes, none of them old.
    fn steps(changes: u32) -> i32 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.db");
        let connection = connections::open_writer(&path).unwrap();
        connection
            .execute(
                "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?1)
                 INSERT INTO changes (revision, time, kind, id) SELECT n, ?2, 3, 'a' FROM numbers",
                (changes, Timestamp::now().as_micros()),
            )
            .unwrap();
        connection.execute("UPDATE meta SET revision = ?1", (changes,)).unwrap();
        let readers = Arc::new(Readers::new(path, Arc::default()));
        assert!(Maintenance::new(&Config::default(), readers).prune(&connection).unwrap());
        let left: u32 = connection.query_row("SELECT count(*) FROM changes", (), |row| row.get(0)).unwrap();
        assert_eq!(left, changes);
        connection.prepare_cached(PRUNE_CHANGES).unwrap().get_status(StatementStatus::VmStep)
    }

    /// Writes wait for it, and the log may hold ten millions.
    #[test]
    fn clearing_does_not_read_the_whole_log() {
        let (short, long) = (steps(1_000), steps(20_000));
        assert!(short > 0 && long <= short, "{short} steps in a short log, {long} in a long one");
    }
}
