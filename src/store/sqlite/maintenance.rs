//! The writer's work other than batches: checkpoints, pruning, and probing whether a full
//! disk has room again.
//!
//! A checkpoint syncs the log and then the file. Where syncs are quick, the writer makes it
//! between two batches. Where they are slow, a thread makes it while commits go on
//! ([`ConcurrentCheckpoint`]). That leaves behind the pages of those commits, so the log
//! cannot restart, and grows. Now and then the writer must stop for a whole checkpoint, and
//! says so one batch before.

use std::{
    fs,
    io::Write,
    mem,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::{
    concurrent_checkpoint::ConcurrentCheckpoint,
    connections, file,
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

/// Pages in the log from which on they are moved into the file (4 MiB).
const CHECKPOINT_PAGES: i64 = 1_000;

/// Writes wait while a checkpoint syncs. One that takes longer than this is made next to
/// commits.
const QUICK_CHECKPOINT: Duration = Duration::from_millis(50);

/// A slow one for which writes wait may take one part in so many of the time.
const CHECKPOINT_SHARE: u32 = 20;

/// Pages that are still to be moved from which on writes wait, however long that takes (64 MiB).
const MAX_UNMOVED_PAGES: i64 = 16_000;

/// Rows of a kind that a transaction clears away at least, and for each of its writes: more
/// than it adds, so that clearing keeps up, and few enough that no write waits noticeably.
const MIN_PRUNE_ROWS: usize = 512;
const PRUNE_ROWS_A_WRITE: usize = 2;

/// How long a try to write waits for a lock; longer than a checkpoint of another program
/// holds it, as a rule.
const TRY_TIMEOUT: Duration = Duration::from_millis(200);

/// What a disk that was full must have free for writes to be let in again: so much that the first
/// users do not fill it, and health does not change with each.
const FREE_BYTES: usize = 1 << 20;

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
    /// What the last checkpoint took for which writes waited, and when it ended.
    checkpoint_took: Duration,
    checkpoint_ended: Instant,
    /// Whether writes were told of the next one.
    is_planned: bool,
    concurrent: ConcurrentCheckpoint,
    readers: Arc<Readers>,
}

impl Maintenance {
    pub fn new(config: &Config, readers: Arc<Readers>, concurrent: ConcurrentCheckpoint) -> Self {
        let now = Instant::now();
        let Config { change_log_retention, change_log_rows, .. } = *config;
        Self {
            change_log_retention,
            change_log_rows,
            prune_at: now,
            truncate_at: now + TRUNCATE_INTERVAL,
            try_at: now + TRY_INTERVAL,
            checkpoint_took: Duration::ZERO,
            checkpoint_ended: now,
            is_planned: false,
            concurrent,
            readers,
        }
    }

    /// When [`Self::run`] has something to do at the latest.
    pub fn due(&self) -> Instant {
        if self.is_planned { Instant::now() } else { self.prune_at.min(self.truncate_at).min(self.try_at) }
    }

    pub fn run(
        &mut self,
        connection: &Connection,
        write_state: &SharedWriteState,
        receiver: &WriteReceiver,
    ) -> rusqlite::Result<()> {
        let now = Instant::now();
        let was_planned = mem::take(&mut self.is_planned);
        if was_planned {
            receiver.plan(Duration::ZERO);
        }
        if now >= self.try_at {
            self.try_at = now + TRY_INTERVAL;
            try_write(connection, write_state)?;
        }
        if write_state.get() != WriteState::Writable {
            self.prune_at = self.prune_at.max(now + TRY_INTERVAL);
            self.truncate_at = self.truncate_at.max(now + TRY_INTERVAL);
            return Ok(());
        }
        if now >= self.prune_at && receiver.len() == 0 {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            self.prune(connection, 0)?;
            self.readers.with_snapshots_closed(|| connection.execute_batch("COMMIT"))?;
        }
        if self.concurrent.is_running() {
            // Else a truncation that is due would wake the writer immediately, again and again.
            self.truncate_at = self.truncate_at.max(now + TRY_INTERVAL);
            return Ok(());
        }
        tolerate_full_disk(self.concurrent.join())?;
        self.checkpoint(connection, receiver, was_planned)
    }

    /// Makes the checkpoint that is due, if one is.
    fn checkpoint(
        &mut self,
        connection: &Connection,
        receiver: &WriteReceiver,
        was_planned: bool,
    ) -> rusqlite::Result<()> {
        let log = connections::checkpoint(connection, "NOOP")?;
        // The first commit of a log syncs its header too.
        receiver.expect_double(log.pages == log.moved);
        let (now, unmoved) = (Instant::now(), log.pages - log.moved);
        // It syncs the log, and then the file.
        let expected = self.checkpoint_took.max(receiver.commit_time() * 2);
        let is_slow = expected > QUICK_CHECKPOINT;
        let is_idle = receiver.len() == 0;
        let may_take_time = !is_slow || is_idle || now >= self.checkpoint_ended + expected * CHECKPOINT_SHARE;
        let truncates = now >= self.truncate_at && may_take_time;
        if truncates && log.pages == 0 {
            self.truncate_at = now + TRUNCATE_INTERVAL;
            return Ok(());
        }
        let is_due = unmoved >= CHECKPOINT_PAGES;
        if !truncates && unmoved < MAX_UNMOVED_PAGES && (is_slow || !is_due) {
            if is_due {
                self.readers.with_snapshots_closed(|| self.concurrent.begin());
            }
            return Ok(());
        }
        if is_slow && !is_idle && !was_planned {
            self.is_planned = true;
            receiver.plan(expected);
            return Ok(());
        }
        // Known before it ends, for the writes that come until then.
        receiver.expect_double(true);
        let done = receiver.busy(expected, || {
            self.readers.with_snapshots_closed(|| {
                if truncates {
                    connections::empty_log(connection)
                } else {
                    connections::checkpoint(connection, "PASSIVE")
                }
            })
        });
        self.checkpoint_ended = Instant::now();
        self.checkpoint_took = self.checkpoint_ended - now;
        if truncates {
            self.truncate_at = self.checkpoint_ended + TRUNCATE_INTERVAL;
        }
        receiver.expect_double(done.as_ref().is_ok_and(|log| log.pages == log.moved));
        tolerate_full_disk(done.map(drop))
    }

    /// Waits for the checkpoint that is made next to commits.
    pub fn join(&mut self) -> rusqlite::Result<()> {
        self.concurrent.join()
    }

    /// Takes one bite of each kind of old row, within a transaction of so many writes, if it
    /// is time to.
    pub fn prune(&mut self, connection: &Connection, writes: usize) -> rusqlite::Result<()> {
        fault_point();
        let now = Instant::now();
        if now < self.prune_at {
            return Ok(());
        }
        let limit = MIN_PRUNE_ROWS.max(writes * PRUNE_ROWS_A_WRITE);
        let requests = connection
            .prepare_cached(
                "DELETE FROM idempotency WHERE key IN
                     (SELECT key FROM idempotency WHERE time < ?1 ORDER BY time LIMIT ?2)",
            )?
            .execute((cutoff_micros(Idempotency::RETENTION), limit.cast_signed()))?;
        let changes = connection.prepare_cached(PRUNE_CHANGES)?.execute((
            cutoff_micros(self.change_log_retention),
            limit.cast_signed(),
            self.change_log_rows.cast_signed(),
        ))?;
        let is_all = requests < limit && changes < limit;
        self.prune_at = if is_all { now + PRUNE_INTERVAL } else { now };
        Ok(())
    }
}

/// On a full disk the log goes on growing. Where that fails too, a commit finds out.
fn tolerate_full_disk(checkpoint: rusqlite::Result<()>) -> rusqlite::Result<()> {
    checkpoint.or_else(|error| if connections::is_full(&error) { Ok(()) } else { Err(error) })
}

/// Finds out whether a write is possible, where that is not known.
fn try_write(connection: &Connection, write_state: &SharedWriteState) -> rusqlite::Result<()> {
    match write_state.get() {
        // Nothing is written: an idle store costs no sync, and a replica of it nothing.
        WriteState::Writable | WriteState::Locked if write_state.is_try_due() => {
            connections::try_write_lock(connection, TRY_TIMEOUT)?;
        }
        WriteState::DiskFull => {
            // Else the next checkpoint would take the room that was found.
            if let Err(error) = connections::checkpoint(connection, "PASSIVE") {
                return tolerate_full_disk(Err(error));
            }
            // A probe may fit where a user does not.
            if !has_room(connection) {
                return Ok(());
            }
            // It must change a value: a page overwritten with the same bytes never reaches the disk.
            connection.prepare_cached("UPDATE meta SET probes = probes + 1")?.execute(())?;
        }
        _ => return Ok(()),
    }
    write_state.wrote();
    Ok(())
}

/// Whether the disk takes [`FREE_BYTES`] more, which a quota may forbid as well. They are given
/// back immediately.
fn has_room(connection: &Connection) -> bool {
    let Some(store) = connection.path() else { return true };
    let path = file::beside(Path::new(store), ".room");
    let written = file::private(&path).and_then(|mut file| file.write_all(&vec![0; FREE_BYTES]));
    let _ = fs::remove_file(&path);
    written.is_ok()
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use rusqlite::StatementStatus;

    use super::*;
    use crate::{domain::Timestamp, store::queue::queue};

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
        let concurrent = ConcurrentCheckpoint::new(connections::open_checkpointer(&path).unwrap());
        let readers = Arc::new(Readers::new(path, Arc::default()));
        Maintenance::new(&Config::default(), readers, concurrent).prune(&connection, 0).unwrap();
        let left: u32 = connection.query_row("SELECT count(*) FROM changes", (), |row| row.get(0)).unwrap();
        assert_eq!(left, changes);
        connection.prepare_cached(PRUNE_CHANGES).unwrap().get_status(StatementStatus::VmStep)
    }

    #[test]
    fn nothing_is_due_again_and_again_while_a_checkpoint_is_made_next_to_commits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.db");
        let connection = connections::open_writer(&path).unwrap();
        let (end, ended) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            let _ = ended.recv();
            Err(rusqlite::Error::InvalidQuery)
        });
        let checkpointer = connections::open_checkpointer(&path).unwrap();
        let concurrent = ConcurrentCheckpoint::running(checkpointer, thread);
        let readers = Arc::new(Readers::new(path, Arc::default()));
        let mut maintenance = Maintenance::new(&Config::default(), readers, concurrent);
        let now = Instant::now();
        maintenance.truncate_at = now;
        let (_queue, receiver) = queue(1);
        maintenance.run(&connection, &SharedWriteState::new(), &receiver).unwrap();
        assert!(maintenance.due() > now + TRY_INTERVAL / 2, "the writer would not rest");
        drop(end);
        assert!(maintenance.join().is_err(), "it was running");
    }

    /// Writes wait for it, and the log may hold ten millions.
    #[test]
    fn clearing_does_not_read_the_whole_log() {
        let (short, long) = (steps(1_000), steps(20_000));
        assert!(short > 0 && long <= short, "{short} steps in a short log, {long} in a long one");
    }
}
