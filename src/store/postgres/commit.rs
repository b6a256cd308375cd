//! One batch of writes, from its reads to its commit.
//!
//! The users and requests of the writes are read without a lock, and the writes are
//! decided. One more round trip does the rest. It locks the counter's row, the only lock
//! that writers wait for, and checks that the reads are still current. Then it writes the
//! rows and commits. So writers cannot deadlock, and the lock is held for a few statements
//! and the commit. A batch that lost to another takes the lock before it reads the next
//! time, so its reads stay current.

use std::time::Duration;

use futures_util::future;
use tokio::time::{self, Instant};
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use super::{
    alone,
    batch::{Batch, Keys, assign_revisions},
    connect_error::ConnectError,
    in_doubt::confirm_durable,
    refusal, rows,
    session::{Param, Session, is_stale},
    sql::Sql,
    write_rows,
};
use crate::{
    domain::{Error, Idempotency, Revision, Timestamp, UserId},
    store::{
        after_image,
        apply::RecordedWrite,
        queue::{PendingWrite, WriteAnswer},
    },
    util::fault_point::fault_point,
};

/// Why a batch was not committed.
pub(super) enum CommitError {
    /// Nothing was written; another try may work.
    Conflict,
    /// Nothing was written.
    Refused(Error),
    /// Nothing was written, because of one row or several; a rule refuses it.
    Row(String),
    /// No answer to the commit: whether it happened, this transaction tells.
    InDoubt { seen: Revision, batch_id: Uuid, answers: Vec<WriteAnswer> },
    /// Committed, though perhaps not as durably as was asked for.
    MaybeNotReplicated,
}

impl From<Error> for CommitError {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<tokio_postgres::Error> for CommitError {
    fn from(error: tokio_postgres::Error) -> Self {
        let again = [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED];
        match error.code() {
            Some(code) if again.contains(code) || is_stale(&error) => Self::Conflict,
            _ => Self::Refused(failed(error)),
        }
    }
}

/// Why [`Sql::Check`] failed.
fn check_failed(error: tokio_postgres::Error) -> CommitError {
    match error.code() {
        Some(&SqlState::INVALID_TEXT_REPRESENTATION) => CommitError::Conflict,
        _ => error.into(),
    }
}

/// Why rows were not written, or not committed. With `locked`, only a writer
/// that bypasses the service can have been in their way.
pub(super) fn rows_failed(error: tokio_postgres::Error, locked: bool) -> CommitError {
    match refusal::rule(&error) {
        Some(_) if !locked && refusal::may_pass(&error) => CommitError::Conflict,
        Some(rule) => CommitError::Row(rule),
        None => error.into(),
    }
}

/// What a caller is told of an error of the database.
pub(super) fn failed(error: tokio_postgres::Error) -> Error {
    let Some(code) = error.code() else { return Error::Unavailable("the connection to the database broke") };
    match code.code() {
        "25006" => Error::Unavailable("the database is a standby"),
        "57014" | "55P03" | "25P03" | "25P04" => Error::Unavailable("the database took too long"),
        // What a pooler says that has no connection to give.
        code if code.starts_with("08") => Error::Unavailable("the connection to the database broke"),
        code if code.starts_with("57P0") => Error::Unavailable("the database is stopping or starting"),
        code if code.starts_with("53") => {
            Error::Unavailable("the database is short of memory, disk or connections")
        }
        // As a fault it says what the server said, less the values of rows.
        _ => Error::Internal(ConnectError::from(error).into()),
    }
}

/// How long a batch may take.
#[derive(Clone, Copy)]
pub(super) struct CommitLimits {
    /// Nothing is sent to be written after this.
    pub until: Instant,
    /// How long one statement may take, a wait for the lock included.
    pub statement: Duration,
}

/// Makes one transaction of all requests. Without a failure, everything is durable.
/// `locked` keeps others from writing from the beginning. `is_alone` says whether no other
/// replica wrote during the last batch, and then whether none did during this one.
pub(super) async fn commit(
    session: &Session,
    requests: &[PendingWrite],
    locked: bool,
    is_alone: &mut bool,
    limits: CommitLimits,
) -> Result<Vec<WriteAnswer>, CommitError> {
    let limit = limits.statement;
    let keys = Keys::of(requests.iter().map(|request| &request.write));
    if !locked && *is_alone && alone::is_possible(session, requests) {
        if let Some(answers) = alone::commit(session, requests, &keys, limits).await? {
            return Ok(answers);
        }
        *is_alone = false;
    }
    let read = async {
        // The read comes before BEGIN. A read inside the transaction would hold a table
        // lock, and a migration that already holds the counter would deadlock with it.
        let (begun, taken, read) = if locked {
            let taken = session.rows(Sql::LockRevision, &[]);
            future::join3(session.begin(limit), taken, fetch(session, &keys)).await
        } else {
            let (read, begun) = future::join(fetch(session, &keys), session.begin(limit)).await;
            (begun, Ok(Vec::new()), read)
        };
        begun.and(taken)?;
        read
    };
    let read = match time::timeout_at(limits.until, read).await {
        Ok(Ok(read)) => read,
        Ok(Err(failure)) => {
            session.rollback(limit).await;
            return Err(failure);
        }
        Err(_) => {
            session.mark_broken();
            return Err(CommitError::Refused(Error::Unavailable("the database did not answer in time")));
        }
    };
    let check = (!locked).then(|| ConflictCheck::of(&keys, &read));
    let seen = read.revision;
    let (batch, mut answers) = decide(read.batch, requests);
    if batch.is_unchanged() {
        session.rollback(limit).await;
        // What was recorded is there to be read, but perhaps not yet as durable as
        // its commit was asked to be.
        return if batch.recorded_count() == 0 || confirm_durable(session, limit).await {
            Ok(answers)
        } else {
            Err(CommitError::Refused(Error::Unavailable("the database did not confirm what it holds")))
        };
    }
    let batch_id = Uuid::new_v4();
    session.forget_warnings();
    let round_trip = finish(session, &batch, check.as_ref(), batch_id);
    match time::timeout_at(limits.until + limit, round_trip).await {
        Ok((Ok(_), Ok(()))) if session.was_warned() => Err(CommitError::MaybeNotReplicated),
        Ok((Ok(base), Ok(()))) => {
            *is_alone = !locked && base == seen;
            assign_revisions(&mut answers, base);
            Ok(answers)
        }
        // The server refused something, so the commit that followed undid everything.
        Ok((Err(Step::ConflictCheck(error)), _)) if error.as_db_error().is_some() => Err(check_failed(error)),
        Ok((Err(Step::Rows(error)), _)) if error.as_db_error().is_some() => Err(rows_failed(error, locked)),
        // A deferred constraint or trigger, which the commit itself runs.
        Ok((Ok(_), Err(error))) if refusal::rule(&error).is_some() => Err(rows_failed(error, locked)),
        Ok(_) | Err(_) => {
            session.mark_broken();
            // What only remembers requests is safe to repeat.
            Err(if batch.log.is_empty() {
                CommitError::Refused(Error::Unavailable("the connection to the database broke"))
            } else {
                CommitError::InDoubt { seen, batch_id, answers }
            })
        }
    }
}

/// What the writes are about, as it was at one revision or a little later.
pub(super) struct Read {
    pub revision: Revision,
    /// Incremented when a batch is in doubt ([`super::in_doubt::resolve`]).
    pub fence: i64,
    pub batch: Batch,
}

/// What the database is asked once it holds the counter for us.
struct ConflictCheck<'a> {
    seen: i64,
    fence: i64,
    ids: Vec<String>,
    emails: &'a [&'a str],
    requests: &'a [&'a [u8]],
    since: i64,
    recorded: i64,
}

impl<'a> ConflictCheck<'a> {
    fn of(keys: &'a Keys<'a>, read: &Read) -> Self {
        Self {
            seen: read.revision.cast_signed(),
            fence: read.fence,
            ids: read.batch.ids().chain(keys.ids.iter().copied()).map(Into::into).collect(),
            emails: &keys.emails,
            requests: &keys.requests,
            since: since(),
            recorded: i64::try_from(read.batch.recorded_count()).unwrap_or(i64::MAX),
        }
    }
}

/// Reads what the writes are about, and the revision that it is not older than.
pub(super) async fn fetch(session: &Session, keys: &Keys<'_>) -> Result<Read, CommitError> {
    let since = since();
    let users: [Param; 2] = [&keys.ids, &keys.emails];
    let requests: [Param; 2] = [&keys.requests, &since];
    let recorded = async {
        if keys.requests.is_empty() { Ok(Vec::new()) } else { session.rows(Sql::Recorded, &requests).await }
    };
    let (known, recorded) = future::try_join(session.rows(Sql::Known, &users), recorded).await?;
    let mut batch = Batch::default();
    for row in &known {
        if let Some(user) = rows::maybe_user(row, 2)? {
            batch.load(user);
        }
    }
    for row in &recorded {
        let payload = rows::get::<&[u8]>(row, 1)?;
        let known = RecordedWrite {
            payload: rows::decode(payload.try_into().map_err(|_| "must be a hash"))?,
            id: rows::decode(UserId::parse(rows::get(row, 2)?))?,
            revision: rows::revision(row, 3)?,
        };
        let key = rows::get::<&[u8]>(row, 0)?.try_into();
        let key = rows::decode(key.map_err(|_| "must be a hash"))?;
        let image = rows::get::<Option<&str>>(row, 4)?;
        let left = image.map(|image| after_image::decode(image, known.id.clone(), known.revision));
        batch.load_recorded(key, known, rows::decode(left.transpose())?, rows::maybe_user(row, 5)?);
    }
    Ok(Read { revision: rows::revision(&known[0], 0)?, fence: rows::get(&known[0], 1)?, batch })
}

/// From when on a recorded write counts.
fn since() -> i64 {
    Timestamp::now().before(Idempotency::RETENTION).as_micros()
}

pub(super) fn decide(mut batch: Batch, requests: &[PendingWrite]) -> (Batch, Vec<WriteAnswer>) {
    let answers = requests.iter().map(|request| {
        fault_point();
        // An abandoned write is not begun.
        if request.is_abandoned() {
            return Err(Error::DeadlineExceeded);
        }
        batch.apply(&request.write, Timestamp::now())
    });
    let answers = answers.collect();
    (batch, answers)
}

/// What failed first.
enum Step {
    /// Taking the counter, or the look at what others wrote.
    ConflictCheck(tokio_postgres::Error),
    Rows(tokio_postgres::Error),
}

/// Writes the rows and commits, all in one journey; tells the revision before the
/// first of this batch.
async fn finish(
    session: &Session,
    batch: &Batch,
    check: Option<&ConflictCheck<'_>>,
    batch_id: Uuid,
) -> (Result<Revision, Step>, Result<(), tokio_postgres::Error>) {
    let count = batch.count();
    let take: [Param; 1] = [&count];
    let checked = async {
        let Some(ConflictCheck { seen, fence, ids, emails, requests, since, recorded }) = check else {
            return Ok(());
        };
        let params: [Param; 7] = [seen, ids, emails, requests, since, recorded, fence];
        session.rows(Sql::Check, &params).await.map(drop)
    };
    // The commit is sent after the rows, as the order here says.
    let (taken, checked, users, log, requests, committed) = tokio::join!(
        biased;
        session.row(Sql::TakeRevisions, &take),
        checked,
        write_rows::users(session, batch),
        write_rows::log(session, batch, batch_id),
        write_rows::requests(session, batch),
        session.client.batch_execute("COMMIT"),
    );
    // The first error is what went wrong; those behind it only say that one did.
    let base = taken.and_then(|taken| checked.and_then(|()| taken.try_get::<_, i64>(0)));
    let written = base
        .map_err(Step::ConflictCheck)
        .and_then(|base| users.and(log).and(requests).map(|()| base.cast_unsigned()).map_err(Step::Rows));
    (written, committed)
}
