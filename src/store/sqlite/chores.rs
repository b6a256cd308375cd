//! What the writer does when nobody waits for it: checkpoints, clearing away
//! what is too old, and finding out whether a full disk has room again.

use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};

use super::{
    gate::{Gate, Writes},
    schema,
};
use crate::{
    config::Config,
    domain::{Idempotency, Timestamp},
};

/// Pages in the log from which on it is moved into the file (4 MiB).
const CHECKPOINT_PAGES: i64 = 1_000;

/// Rows that are cleared away in one transaction: more than a batch adds, so that
/// clearing keeps up, and few enough that nobody notices the wait.
const BITE: usize = 512;

/// How often is looked for rows to clear away.
const CLEARING: Duration = Duration::from_secs(10);

/// How often a full disk is tried.
const PROBING: Duration = Duration::from_secs(1);

pub(super) struct Chores {
    change_log_retention: Duration,
    change_log_rows: usize,
    clear_at: Instant,
    probe_at: Instant,
}

impl Chores {
    pub fn new(config: &Config) -> Self {
        let now = Instant::now();
        let Config { change_log_retention, change_log_rows, .. } = *config;
        Self { change_log_retention, change_log_rows, clear_at: now, probe_at: now + PROBING }
    }

    /// When [`Self::run`] has something to do at the latest.
    pub fn due(&self) -> Instant {
        self.clear_at.min(self.probe_at)
    }

    pub fn run(&mut self, connection: &Connection, gate: &Gate) -> rusqlite::Result<()> {
        let now = Instant::now();
        if now >= self.probe_at {
            self.probe_at = now + PROBING;
            if gate.writes() == Writes::Full {
                probe(connection)?;
                gate.set(Writes::On);
            }
        }
        if gate.writes() != Writes::On {
            self.clear_at = self.clear_at.max(now + PROBING);
            return Ok(());
        }
        if now >= self.clear_at {
            self.clear_at = now + CLEARING;
            if !self.clear(connection)? {
                self.clear_at = now;
            }
        }
        let (in_log, in_file) = schema::checkpoint(connection, "NOOP")?;
        if in_log - in_file >= CHECKPOINT_PAGES {
            match schema::checkpoint(connection, "PASSIVE") {
                // Then the log goes on growing. Where that fails too, a commit finds out.
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {}
                checkpointed => drop(checkpointed?),
            }
        }
        Ok(())
    }

    /// Takes one bite of each kind of old row; whether that was all of them.
    fn clear(&self, connection: &Connection) -> rusqlite::Result<bool> {
        let before = |retention: Duration| {
            let retention = i64::try_from(retention.as_micros()).unwrap_or(i64::MAX);
            Timestamp::now().as_micros().saturating_sub(retention)
        };
        let requests = connection
            .prepare_cached(
                "DELETE FROM idempotency WHERE key IN
                     (SELECT key FROM idempotency WHERE time < ?1 ORDER BY time LIMIT ?2)",
            )?
            .execute((before(Idempotency::RETENTION), BITE.cast_signed()))?;
        // By revision: whoever reads the log must find its end, never a hole in it. The
        // last one stays: it is where those who watch have got to.
        let changes = connection
            .prepare_cached(
                "DELETE FROM changes WHERE revision < (SELECT revision FROM meta) AND revision <=
                     (SELECT max(revision) FROM (SELECT revision, time FROM changes ORDER BY revision LIMIT ?2)
                      WHERE time < ?1 OR revision <= (SELECT revision FROM meta) - ?3)",
            )?
            .execute((
                before(self.change_log_retention),
                BITE.cast_signed(),
                self.change_log_rows.cast_signed(),
            ))?;
        Ok(requests < BITE && changes < BITE)
    }
}

/// A small durable write. It has to change something: what is overwritten with the
/// same never gets to the disk.
fn probe(connection: &Connection) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE meta SET probes = probes + 1")?.execute(()).map(drop)
}
