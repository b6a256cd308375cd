//! One batch of writes, from what is stored to what is durable.
//!
//! What the writes are about is read without a lock, and they are decided on it.
//! Only then the counter's row is taken, the one lock that writers wait for, and
//! it is looked whether any of that has changed since; if so, it is read and
//! decided once more, and now nobody can change it. So no two writers ever wait
//! for each other in a circle, and the lock is held for a round trip or two and
//! the commit.

use std::time::Duration;

use futures_util::future;
use tokio::time::{self, Instant};
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use super::{
    batch::{Batch, Keys},
    fault::Fault,
    rows,
    session::{Param, Session},
    sql::Sql,
    writer::{Answer, Request},
};
use crate::{
    domain::{Error, Idempotency, Revision, Timestamp, User, UserId},
    store::apply::Recorded,
};

/// Why a batch was not committed.
pub(super) enum Failure {
    /// Nothing was written; another try may work.
    Again,
    /// Nothing was written.
    Refused(Error),
    /// No answer to the commit: whether it happened, this transaction tells.
    InDoubt { first: Revision, tag: Uuid, answers: Vec<Answer> },
    /// Committed, though perhaps not as durably as was asked for.
    Warned,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.code() {
            Some(code)
                if [
                    SqlState::T_R_SERIALIZATION_FAILURE,
                    SqlState::T_R_DEADLOCK_DETECTED,
                    // Rows that were written past the service.
                    SqlState::UNIQUE_VIOLATION,
                ]
                .contains(code) =>
            {
                Self::Again
            }
            _ => Self::Refused(failed(error)),
        }
    }
}

/// What a caller is told of an error of the database.
pub(super) fn failed(error: tokio_postgres::Error) -> Error {
    let Some(code) = error.code() else { return Error::Unavailable("the connection to the database broke") };
    match code.code() {
        "25006" => Error::Unavailable("the database is a standby"),
        "57014" | "55P03" | "25P03" => Error::Unavailable("the database took too long"),
        code if code.starts_with("57P0") => Error::Unavailable("the database is stopping or starting"),
        code if code.starts_with("53") => {
            Error::Unavailable("the database is short of memory, disk or connections")
        }
        // As a fault it says what the server said, less the values of rows.
        _ => Error::Internal(Fault::from(error).into()),
    }
}

/// Makes one transaction of all requests. Without a failure, everything is durable.
/// Nothing is begun after `until`, and the commit itself may take `limit`.
pub(super) async fn commit(
    session: &Session,
    requests: &[Request],
    until: Instant,
    limit: Duration,
) -> Result<Vec<Answer>, Failure> {
    let prepared = match time::timeout_at(until, prepare(session, requests, limit)).await {
        Ok(Ok(prepared)) => prepared,
        Ok(Err(failure)) => {
            session.rollback(limit).await;
            return Err(failure);
        }
        Err(_) => {
            session.abandon();
            return Err(Failure::Refused(Error::Unavailable("the database did not answer in time")));
        }
    };
    let Prepared { batch, answers, base, open } = prepared;
    if !open {
        // What was recorded is there to be read, but perhaps not yet as durable as
        // its commit was asked to be.
        return if batch.recorded_count() == 0 || settle(session, limit).await {
            Ok(answers)
        } else {
            Err(Failure::Refused(Error::Unavailable("the database did not confirm what it holds")))
        };
    }
    let tag = Uuid::new_v4();
    session.forget_warnings();
    let in_doubt = |answers| {
        session.abandon();
        if batch.log.is_empty() {
            // What only remembers requests is safe to repeat.
            return Failure::Refused(Error::Unavailable("the connection to the database broke"));
        }
        Failure::InDoubt { first: base + 1, tag, answers }
    };
    match time::timeout(limit, finish(session, &batch, base, tag)).await {
        Ok((Ok(()), Ok(()))) if session.was_warned() => Err(Failure::Warned),
        Ok((Ok(()), Ok(()))) => Ok(answers),
        // The server refused a row, so the commit that followed undid everything.
        Ok((Err(error), _)) if error.as_db_error().is_some() => Err(error.into()),
        Ok(_) | Err(_) => Err(in_doubt(answers)),
    }
}

struct Prepared {
    batch: Batch,
    answers: Vec<Answer>,
    base: Revision,
    /// Whether there is a transaction to be committed.
    open: bool,
}

async fn prepare(session: &Session, requests: &[Request], limit: Duration) -> Result<Prepared, Failure> {
    let keys = Keys::of(requests.iter().map(|request| &request.write));
    let (seen, batch) = fetch(session, &keys).await?;
    let known: Vec<&str> = batch.ids().chain(keys.ids.iter().copied()).collect();
    let known: Vec<String> = known.into_iter().map(Into::into).collect();
    let recorded = i64::try_from(batch.recorded_count()).unwrap_or(i64::MAX);
    let (mut batch, mut answers) = decide(batch, requests);
    if batch.is_idle() {
        return Ok(Prepared { batch, answers, base: 0, open: false });
    }
    let count = length(&batch.log);
    let (begun, base) = future::join(session.begin(limit), session.row(Sql::TakeRevisions, &[&count])).await;
    begun?;
    let base = rows::revision(&base?, 0)?;
    if base != seen || !keys.requests.is_empty() {
        let conflict = session
            .row(
                Sql::Conflict,
                &[&seen.cast_signed(), &known, &keys.emails, &keys.requests, &since(), &recorded],
            )
            .await?;
        if rows::get(&conflict, 0)? {
            (batch, answers) = decide(fetch(session, &keys).await?.1, requests);
            let last = base.cast_signed() + length(&batch.log);
            session.rows(Sql::SetRevision, &[&last]).await?;
        }
    }
    batch.number(base, &mut answers);
    Ok(Prepared { batch, answers, base, open: true })
}

/// Reads what the writes are about, and first of all the revision that it is not
/// older than.
async fn fetch(session: &Session, keys: &Keys<'_>) -> Result<(Revision, Batch), Failure> {
    let since = since();
    let users: [Param; 2] = [&keys.ids, &keys.emails];
    let requests: [Param; 2] = [&keys.requests, &since];
    let recorded = async {
        if keys.requests.is_empty() { Ok(Vec::new()) } else { session.rows(Sql::Recorded, &requests).await }
    };
    let (seen, (users, recorded)) = future::try_join(
        session.row(Sql::Revision, &[]),
        future::try_join(session.rows(Sql::UsersOfBatch, &users), recorded),
    )
    .await?;
    let mut batch = Batch::default();
    for user in rows::users(&users)? {
        batch.know(user);
    }
    for row in &recorded {
        let payload = rows::get::<&[u8]>(row, 1)?;
        let known = Recorded {
            payload: rows::good(payload.try_into().map_err(|_| "must be a hash"))?,
            id: rows::good(UserId::parse(rows::get(row, 2)?))?,
            revision: rows::revision(row, 3)?,
        };
        let key = rows::get::<&[u8]>(row, 0)?.try_into();
        let key = rows::good(key.map_err(|_| "must be a hash"))?;
        batch.know_recorded(key, known, rows::maybe_user(row, 4)?, rows::maybe_user(row, 11)?);
    }
    Ok((rows::revision(&seen, 0)?, batch))
}

fn length<T>(rows: &[T]) -> i64 {
    i64::try_from(rows.len()).unwrap_or(i64::MAX)
}

/// From when on a recorded write counts.
fn since() -> i64 {
    let retention = i64::try_from(Idempotency::RETENTION.as_micros()).unwrap_or(i64::MAX);
    Timestamp::now().as_micros().saturating_sub(retention)
}

fn decide(mut batch: Batch, requests: &[Request]) -> (Batch, Vec<Answer>) {
    let answers = requests.iter().map(|request| {
        // Nobody waits for this one any more, so it is not begun.
        if request.answer.is_closed() || request.deadline.is_over() {
            return Err(Error::DeadlineExceeded);
        }
        batch.apply(&request.write, Timestamp::now())
    });
    let answers = answers.collect();
    (batch, answers)
}

/// Writes the rows and commits, all in one journey.
async fn finish(
    session: &Session,
    batch: &Batch,
    base: Revision,
    tag: Uuid,
) -> (Result<(), tokio_postgres::Error>, Result<(), tokio_postgres::Error>) {
    let written = future::try_join(
        put(session, batch),
        future::try_join(log(session, batch, base, tag), remember(session, batch)),
    );
    // The commit is sent after the rows, as the order here says.
    let (written, committed) = future::join(written, session.client.batch_execute("COMMIT")).await;
    (written.map(drop), committed)
}

async fn put(session: &Session, batch: &Batch) -> Result<(), tokio_postgres::Error> {
    let (gone, there) = batch.outcome();
    let delete: [Param; 1] = [&gone];
    let delete =
        async { if gone.is_empty() { Ok(Vec::new()) } else { session.rows(Sql::Delete, &delete).await } };
    let text = |field: fn(&User) -> &str| there.iter().map(|user| field(user)).collect::<Vec<_>>();
    let number = |field: fn(&User) -> i64| there.iter().map(|user| field(user)).collect::<Vec<_>>();
    let (ids, names) = (text(|user| user.id.as_str()), text(|user| user.name.as_str()));
    let emails = text(|user| user.email.as_str());
    let ages: Vec<_> = there.iter().map(|user| i32::from(user.age.years())).collect();
    let revisions = number(|user| user.revision.cast_signed());
    let (created, updated) =
        (number(|user| user.create_time.as_micros()), number(|user| user.update_time.as_micros()));
    let put: [Param; 7] = [&ids, &names, &emails, &ages, &revisions, &created, &updated];
    let put = async { if ids.is_empty() { Ok(Vec::new()) } else { session.rows(Sql::Put, &put).await } };
    future::try_join(delete, put).await.map(drop)
}

async fn log(
    session: &Session,
    batch: &Batch,
    base: Revision,
    tag: Uuid,
) -> Result<(), tokio_postgres::Error> {
    if batch.log.is_empty() {
        return Ok(());
    }
    let users = || batch.log.iter().map(|row| row.user.as_ref());
    let revisions: Vec<_> = (base.cast_signed() + 1..).take(batch.log.len()).collect();
    let times: Vec<_> = batch.log.iter().map(|row| row.time.as_micros()).collect();
    let kinds: Vec<_> = batch.log.iter().map(|row| row.kind as i32).collect();
    let ids: Vec<_> = batch.log.iter().map(|row| row.id.as_str()).collect();
    let names: Vec<_> = users().map(|user| user.map(|user| user.name.as_str())).collect();
    let emails: Vec<_> = users().map(|user| user.map(|user| user.email.as_str())).collect();
    let ages: Vec<_> = users().map(|user| user.map(|user| i32::from(user.age.years()))).collect();
    let created: Vec<_> = users().map(|user| user.map(|user| user.create_time.as_micros())).collect();
    let updated: Vec<_> = users().map(|user| user.map(|user| user.update_time.as_micros())).collect();
    let params: [Param; 10] =
        [&tag, &revisions, &times, &kinds, &ids, &names, &emails, &ages, &created, &updated];
    session.rows(Sql::Log, &params).await.map(drop)
}

async fn remember(session: &Session, batch: &Batch) -> Result<(), tokio_postgres::Error> {
    if batch.remembered.is_empty() {
        return Ok(());
    }
    let rows = || batch.remembered.values();
    let keys: Vec<_> = rows().map(|row| row.idempotency.key.as_slice()).collect();
    let payloads: Vec<_> = rows().map(|row| row.idempotency.payload.as_slice()).collect();
    let ids: Vec<_> = rows().map(|row| row.id.as_str()).collect();
    let revisions: Vec<_> = rows().map(|row| row.revision.cast_signed()).collect();
    let times: Vec<_> = rows().map(|row| row.time.as_micros()).collect();
    session.rows(Sql::Record, &[&keys, &payloads, &ids, &revisions, &times]).await.map(drop)
}

/// What became of a transaction that was in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Committed, and as durable as was asked for.
    Durable,
    /// Committed where it was made; a standby that it should be on may lack it.
    Local,
    Undone,
}

/// Finds that out. The transaction held the counter, so once this has it, that one
/// has ended.
pub(super) async fn look(
    session: &Session,
    first: Revision,
    tag: Uuid,
    limit: Duration,
) -> Result<Outcome, Error> {
    let work = async {
        let (begun, locked) = future::join(session.begin(limit), session.rows(Sql::LockRevision, &[])).await;
        begun.and(locked.map(drop))?;
        let row = session.row(Sql::IsCommitted, &[&first.cast_signed(), &tag]).await;
        session.rollback(limit).await;
        row
    };
    let committed: bool = match time::timeout(limit, work).await {
        Ok(Ok(row)) => rows::get(&row, 0)?,
        Ok(Err(error)) => {
            session.abandon();
            return Err(failed(error));
        }
        Err(_) => {
            session.abandon();
            return Err(Error::OutcomeUnknown);
        }
    };
    Ok(if !committed {
        Outcome::Undone
    } else if settle(session, limit).await {
        Outcome::Durable
    } else {
        Outcome::Local
    })
}

/// Makes sure that all that can be read is durable: a commit that comes after all
/// of it waits for the same standbys.
async fn settle(session: &Session, limit: Duration) -> bool {
    session.forget_warnings();
    let work = async {
        let (begun, touched, committed) = future::join3(
            session.begin(limit),
            session.rows(Sql::Touch, &[]),
            session.client.batch_execute("COMMIT"),
        )
        .await;
        begun.and(touched.map(drop)).and(committed)
    };
    let settled = matches!(time::timeout(limit, work).await, Ok(Ok(()))) && !session.was_warned();
    if !settled {
        session.abandon();
    }
    settled
}
