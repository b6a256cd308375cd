//! The one task that writes.
//!
//! It takes the queued writes, makes one transaction of them ([`super::commit`]), and
//! answers only when that is durable. It has its own connection, and works under the
//! server's time limit instead of a call's deadline.

use std::{sync::Arc, time::Duration};

use metrics::Counter;
use tokio::{
    sync::watch,
    time::{self, Instant},
};
use uuid::Uuid;

use super::{
    batch::assign_revisions,
    commit::{self, CommitError, CommitLimits},
    connect_error::ConnectError,
    in_doubt::{self, CommitOutcome},
    reconnecting::{DISCONNECTED, ReconnectingSession},
    session::Param,
    sql::Sql,
};
use crate::{
    domain::{Error, Idempotency, Revision},
    store::{
        heartbeat::{TRY_INTERVAL, WriteHeartbeat},
        queue::{PendingWrite, WriteAnswer, WriteReceiver, answer},
        writer_loop::{BatchWriter, PRUNE_INTERVAL, cutoff_micros, publish},
    },
};

/// How often a transaction that lost to another is made again.
const MAX_ATTEMPTS: usize = 4;

/// How often a database that is gone is asked for an outcome.
const RESOLVE_INTERVAL: Duration = Duration::from_millis(50);

/// How long a try to write waits for a lock; longer than other replicas hold the counter.
const TRY_TIMEOUT: Duration = Duration::from_secs(1);

/// The most rows of one kind that are pruned in one statement.
const PRUNE_BATCH_ROWS: i64 = 2_000;

/// The advisory lock of pruning.
const PRUNE_LOCK: i64 = 0x7573_7276_0000_0002;

pub(super) struct Writer {
    pub session: Arc<ReconnectingSession>,
    /// Where it says how far it has come.
    pub newest: Arc<watch::Sender<Revision>>,
    /// Whether no other replica wrote during the last batch.
    pub is_alone: bool,
    pub retries: Counter,
    pub heartbeat: Arc<WriteHeartbeat>,
    pub limit: Duration,
    pub change_log_retention: Duration,
    pub change_log_rows: i64,
    pub prune_at: Instant,
    pub try_at: Instant,
}

impl BatchWriter for Writer {
    async fn write(&mut self, batch: Vec<PendingWrite>) {
        self.batch(batch).await;
    }

    fn recover(&mut self) {
        // Its transaction may be open.
        if let Some(session) = self.session.session() {
            session.mark_broken();
        }
    }

    fn maintenance_due(&self) -> std::time::Instant {
        self.prune_at.min(self.try_at).into_std()
    }

    async fn maintain(&mut self, _: &WriteReceiver) {
        if Instant::now() >= self.try_at {
            // Also where it panics.
            self.try_at = Instant::now() + TRY_INTERVAL;
            self.try_write().await;
            self.try_at = Instant::now() + TRY_INTERVAL;
        }
        if Instant::now() >= self.prune_at {
            self.prune_at = Instant::now() + PRUNE_INTERVAL;
            let more = time::timeout(self.limit, self.prune()).await.unwrap_or(false);
            if more {
                self.prune_at = Instant::now();
            }
        }
    }
}

impl Writer {
    /// Answers all requests, in their order. Those that share a transaction with a row that
    /// a rule of the database refuses are made again in halves, until it is alone.
    async fn batch(&mut self, requests: Vec<PendingWrite>) {
        let mut parts = vec![requests];
        while let Some(mut part) = parts.pop() {
            let done = self.transaction(&part).await;
            if done.is_err() {
                // The database takes writes, or it would not have looked at the row.
                self.heartbeat.beat();
            }
            match done {
                Ok(answers) => self.answer(part, answers),
                Err(rule) if part.len() == 1 => self.answer(part, vec![Err(Error::RefusedByStore(rule))]),
                Err(_) => {
                    let second = part.split_off(part.len() / 2);
                    parts.extend([second, part]);
                }
            }
        }
    }

    fn answer(&self, requests: Vec<PendingWrite>, answers: Vec<WriteAnswer>) {
        let revision = answers.iter().flatten().map(|written| written.revision).max().unwrap_or(0);
        if revision > 0 {
            self.heartbeat.beat();
        }
        publish(&self.newest, revision);
        answer(requests, answers);
    }

    /// Makes one transaction of all requests, and says what became of each. The error is a
    /// rule of the database that refuses a row of theirs: then nothing was written.
    async fn transaction(&mut self, requests: &[PendingWrite]) -> Result<Vec<WriteAnswer>, String> {
        let all = |error: fn() -> Error| Ok(requests.iter().map(|_| Err(error())).collect());
        let limits = CommitLimits { until: Instant::now() + self.limit, statement: self.limit };
        for tries in 0..MAX_ATTEMPTS {
            let Some(session) = self.session.session() else { return all(|| DISCONNECTED) };
            match commit::commit(&session, requests, tries > 0, &mut self.is_alone, limits).await {
                Ok(answers) => return Ok(answers),
                Err(CommitError::Row(rule)) => return Err(rule),
                Err(CommitError::Conflict) => self.retries.increment(1),
                Err(CommitError::Refused(Error::Internal(error))) => {
                    // One source and many answers: it is logged here, once.
                    tracing::error!(error = %error, "the database refused a batch of writes");
                    return all(|| Error::Internal("the batch failed".into()));
                }
                Err(CommitError::Refused(Error::Unavailable(why))) => {
                    return Ok(requests.iter().map(|_| Err(Error::Unavailable(why))).collect());
                }
                Err(CommitError::Refused(_)) => return all(|| Error::Unavailable("the batch failed")),
                Err(CommitError::MaybeNotReplicated) => return all(|| Error::OutcomeUnknown),
                Err(CommitError::InDoubt { seen, batch_id, mut answers }) => {
                    return match self.resolve(seen, batch_id).await {
                        Some(CommitOutcome::Durable { base }) => {
                            assign_revisions(&mut answers, base);
                            Ok(answers)
                        }
                        Some(CommitOutcome::RolledBack) => {
                            all(|| Error::Unavailable("the connection to the database broke"))
                        }
                        Some(CommitOutcome::NotReplicated) | None => all(|| Error::OutcomeUnknown),
                    };
                }
            }
        }
        all(|| Error::Unavailable("the transaction lost to others again and again"))
    }

    /// What became of a transaction without an answer to its commit, unless that
    /// cannot be found out in time.
    async fn resolve(&self, seen: Revision, batch_id: Uuid) -> Option<CommitOutcome> {
        let until = Instant::now() + self.limit;
        while Instant::now() < until {
            if let Some(session) = self.session.session()
                && let Ok(outcome) = in_doubt::resolve(&session, seen, batch_id, until - Instant::now()).await
            {
                tracing::warn!(?outcome, "a commit got no answer; its outcome was found out");
                return Some(outcome);
            }
            time::sleep(RESOLVE_INTERVAL).await;
        }
        tracing::error!("a commit got no answer, and its outcome could not be found out");
        None
    }

    /// Finds out whether a write is possible, where none was made lately.
    async fn try_write(&self) {
        if self.heartbeat.is_try_due()
            && let Some(session) = self.session.session()
            && session.try_write_locks(TRY_TIMEOUT, self.limit).await
        {
            self.heartbeat.beat();
        }
    }

    /// Takes one bite of each kind of old row; whether there may be more.
    async fn prune(&self) -> bool {
        let Some(session) = self.session.session() else { return false };
        let recorded = cutoff_micros(Idempotency::RETENTION);
        let changes = cutoff_micros(self.change_log_retention);
        let mut more = false;
        let of_requests: [Param; 3] = [&recorded, &PRUNE_BATCH_ROWS, &PRUNE_LOCK];
        let of_changes: [Param; 4] = [&changes, &PRUNE_BATCH_ROWS, &PRUNE_LOCK, &self.change_log_rows];
        for (sql, params) in [(Sql::PruneRecorded, &of_requests[..]), (Sql::PruneChanges, &of_changes[..])] {
            match session.rows(sql, params).await {
                Ok(cleared) => more |= cleared.len().cast_signed() as i64 == PRUNE_BATCH_ROWS,
                Err(error) => {
                    tracing::warn!(error = %ConnectError::from(error), "old rows were not cleared away");
                }
            }
        }
        more
    }
}
