//! The one thread that writes.
//!
//! It takes the queued writes, makes one transaction of them, commits, and answers only
//! then. So one sync of the log serves many writes, and revisions are in commit order.
//! A write is checked before anything of it is made, so it needs no savepoint, which
//! would cost as much again as its rows. What the file itself refuses undoes the batch,
//! and its writes are then made one by one.

use std::{fs::File, iter, sync::Arc, time::Instant};

use rusqlite::{Connection, ErrorCode, config::DbConfig, ffi::SQLITE_CONSTRAINT_TRIGGER};
use tokio::sync::watch;

use super::{
    cache::{Cache, Changed},
    connections,
    file::OpenFiles,
    maintenance::Maintenance,
    rows,
    transaction::{ApplyError, SqlTransaction},
    write_state::{SharedWriteState, WriteState},
};
use crate::{
    domain::{Error, Revision, Timestamp},
    store::{
        apply::apply,
        queue::{PendingWrite, WriteAnswer, WriteReceiver, answer},
        writer_loop::{self, BatchWriter, publish},
    },
    util::fault_point::fault_point,
};

pub(super) struct Writer {
    pub connection: Connection,
    pub write_state: Arc<SharedWriteState>,
    pub cache: Arc<Cache>,
    /// Where it says how far it has come.
    pub newest: Arc<watch::Sender<Revision>>,
    pub maintenance: Maintenance,
    pub files: OpenFiles,
    /// Held until the connection is closed.
    pub lock: File,
}

/// What stopped a whole transaction.
struct BatchError {
    error: rusqlite::Error,
    step: Step,
}

/// The step of a transaction that failed.
#[derive(PartialEq, Eq)]
enum Step {
    /// One of the writes.
    Write,
    /// The commit, so that what was written is unknown.
    Commit,
    Other,
}

impl Writer {
    /// Works until the queue is closed and everything in it is done. Blocks its thread.
    pub async fn run(mut self, receiver: &WriteReceiver) {
        writer_loop::run(receiver, &mut self).await;
        self.close();
    }

    fn write_batch(&mut self, requests: Vec<PendingWrite>) {
        self.check_files();
        if self.write_state.refusal().is_some() {
            return self.refuse(requests);
        }
        match self.commit(&requests) {
            Ok(answers) => {
                self.write_state.wrote();
                answer(requests, answers);
            }
            // The others have nothing to do with it.
            Err(BatchError { error, step: Step::Write })
                if is_error_of_one_write(&error) && self.roll_back() =>
            {
                if requests.len() == 1 {
                    answer(requests, vec![Err(refused(error))]);
                } else {
                    for request in requests {
                        self.write_batch(vec![request]);
                    }
                }
            }
            Err(fault) => self.fail(&fault, requests),
        }
    }

    /// Turns writes away for good once the files are no longer those that others will open.
    fn check_files(&self) {
        if !self.files.are_in_place() {
            self.write_state.set(WriteState::Replaced);
        }
    }

    /// Makes one transaction of all requests. Without a fault, everything is durable.
    fn commit(&mut self, requests: &[PendingWrite]) -> Result<Vec<WriteAnswer>, BatchError> {
        let mut transaction = SqlTransaction::begin(&self.connection).map_err(failed_at(Step::Other))?;
        let before = transaction.revision;
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            answers.push(apply_one(&mut transaction, request).map_err(failed_at(Step::Write))?);
        }
        if transaction.revision != before {
            transaction.save_revision().map_err(failed_at(Step::Other))?;
        }
        // Here it takes no further sync.
        self.maintenance.prune(&self.connection, requests.len()).map_err(failed_at(Step::Other))?;
        let cached = self.cache.begin(&transaction.changed);
        let revision = transaction.revision;
        let committed = transaction.run("COMMIT");
        cached.end(if committed.is_ok() { transaction.changed } else { Changed::new() });
        committed.map_err(failed_at(Step::Commit))?;
        publish(&self.newest, revision);
        Ok(answers)
    }

    /// Answers requests whose transaction failed.
    fn fail(&self, fault: &BatchError, requests: Vec<PendingWrite>) {
        self.roll_back();
        self.note_write_failure(&fault.error);
        if fault.step == Step::Commit && self.write_state.get() == WriteState::Failed {
            answer(requests, iter::repeat_with(|| Err(Error::OutcomeUnknown)));
        } else {
            self.refuse(requests);
        }
    }

    /// Ends the transaction, if one is open; whether none is.
    fn roll_back(&self) -> bool {
        // What cannot be rolled back is not committed either.
        self.connection.is_autocommit() || self.connection.execute_batch("ROLLBACK").is_ok()
    }

    /// Answers requests that nothing was done for.
    fn refuse(&self, requests: Vec<PendingWrite>) {
        let refusal =
            || self.write_state.refusal().unwrap_or(Error::Unavailable("another program holds the file"));
        answer(requests, iter::repeat_with(|| Err(refusal())));
    }

    /// Turns writes away where an error says that they will not work.
    fn note_write_failure(&self, error: &rusqlite::Error) {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => self.write_state.set(WriteState::DiskFull),
            // It may be full as well, which only a write can tell.
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                if self.write_state.get() == WriteState::Writable {
                    self.write_state.set(WriteState::Locked);
                }
            }
            _ => {
                tracing::error!(code = error.sqlite_extended_error_code(), "the store's writer failed");
                self.write_state.set(WriteState::Failed);
            }
        }
    }

    fn close(mut self) {
        if let Err(error) = self.maintenance.join() {
            self.note_write_failure(&error);
        }
        let broken = self.write_state.get() == WriteState::Failed;
        let in_log = if broken {
            // The log is the only copy that can be trusted: leave it to the next start.
            let _ = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
            None
        } else {
            // SQLite does so only for the last program that closes the file.
            connections::empty_log(&self.connection).ok().filter(|log| log.is_busy)
        };
        if in_log.is_some() {
            tracing::warn!(
                "another program has the store's file open: the newest writes are in its -wal file, which \
                 belongs to it; the next start moves them"
            );
        }
        // The last connection to be closed must be the writer's.
        drop(self.maintenance);
        if self.connection.close().is_err() {
            tracing::warn!("the store's file did not close cleanly; the next start recovers it");
        }
        drop(self.lock);
    }
}

impl BatchWriter for Writer {
    async fn write(&mut self, batch: Vec<PendingWrite>) {
        self.write_batch(batch);
    }

    fn recover(&mut self) {
        if !self.roll_back() {
            return self.write_state.set(WriteState::Failed);
        }
        match rows::current_revision(&self.connection) {
            // The batch may have been committed, and watches not told of it.
            Ok(newest) => publish(&self.newest, newest),
            Err(error) => self.note_write_failure(&error),
        }
    }

    fn maintenance_due(&self) -> Instant {
        self.maintenance.due()
    }

    async fn maintain(&mut self, receiver: &WriteReceiver) {
        if self.write_state.is_try_due() {
            self.check_files();
        }
        if let Err(error) = self.maintenance.run(&self.connection, &self.write_state, receiver) {
            // Its transaction may be open, and the next batch needs another one.
            self.roll_back();
            self.note_write_failure(&error);
        }
    }
}

fn failed_at(step: Step) -> impl FnOnce(rusqlite::Error) -> BatchError {
    move |error| BatchError { error, step }
}

/// One write of a batch. After an error, parts of it may be in the transaction.
fn apply_one(transaction: &mut SqlTransaction, request: &PendingWrite) -> rusqlite::Result<WriteAnswer> {
    fault_point();
    // An abandoned write is not begun.
    if request.is_abandoned() {
        return Ok(Err(Error::DeadlineExceeded));
    }
    match apply(transaction, &request.write, Timestamp::now()) {
        Ok(written) => Ok(Ok(written)),
        Err(ApplyError::Refused(error)) => Ok(Err(error)),
        Err(ApplyError::Sql(error)) => Err(error),
    }
}

/// Whether an error is one write's and not the store's: a rule that the file adds to
/// ours, a trigger that fails, or a row that is not one of ours.
fn is_error_of_one_write(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => matches!(
            failure.code,
            ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig | ErrorCode::Unknown
        ),
        other => other.sqlite_error_code().is_none(),
    }
}

/// What the caller is told of such an error.
fn refused(error: rusqlite::Error) -> Error {
    match &error {
        // The text of a constraint names it. That of a trigger is its author's, and may
        // hold values of the row.
        rusqlite::Error::SqliteFailure(failure, Some(text))
            if failure.code == ErrorCode::ConstraintViolation
                && failure.extended_code != SQLITE_CONSTRAINT_TRIGGER =>
        {
            Error::RefusedByStore(text.clone())
        }
        rusqlite::Error::SqliteFailure(failure, _) => {
            Error::RefusedByStore(format!("a trigger (SQLite code {})", failure.extended_code))
        }
        rusqlite::Error::StatementChangedRows(_) => {
            Error::RefusedByStore("a trigger left the row out".into())
        }
        _ => Error::Internal(error.into()),
    }
}
