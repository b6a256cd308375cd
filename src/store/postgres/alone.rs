//! A batch while no other replica writes: its read, and one statement.
//!
//! A statement outside of BEGIN and COMMIT is a transaction. Its one answer says whether it was
//! committed; [`super::commit`] waits for six answers. The statement sees the tables from
//! before its wait for the counter, so it cannot check what another replica wrote during
//! that wait. It takes the counter only where that has not moved: then no replica has
//! written since the read. Otherwise it writes nothing.
//!
//! It locks its tables before it waits, and the counter's table first, for which a
//! migration therefore waits as well ([`super::schema`]).

use tokio::time;
use tokio_postgres::error::Severity;
use uuid::Uuid;

use super::{
    batch::{Keys, assign_revisions},
    commit::{CommitError, CommitLimits, decide, fetch, rows_failed},
    session::Session,
    write_rows,
};
use crate::{
    domain::{Change, Error},
    store::queue::{PendingWrite, WriteAnswer},
};

/// Whether one statement can do all of it. A recorded request does not move the counter,
/// and deletions are checked by another statement.
pub(super) fn is_possible(session: &Session, requests: &[PendingWrite]) -> bool {
    let suits = |request: &PendingWrite| {
        request.write.idempotency.is_none() && !matches!(request.write.change, Change::Delete { .. })
    };
    session.has_limits && requests.iter().all(suits)
}

/// Makes one transaction of all requests; `None` where another replica was faster, and
/// nothing was written.
pub(super) async fn commit(
    session: &Session,
    requests: &[PendingWrite],
    keys: &Keys<'_>,
    limits: CommitLimits,
) -> Result<Option<Vec<WriteAnswer>>, CommitError> {
    let Ok(read) = time::timeout_at(limits.until, fetch(session, keys)).await else {
        session.mark_broken();
        return Err(CommitError::Refused(Error::Unavailable("the database did not answer in time")));
    };
    let read = read?;
    let seen = read.revision;
    let (batch, mut answers) = decide(read.batch, requests);
    if batch.is_unchanged() {
        return Ok(Some(answers));
    }
    let batch_id = Uuid::new_v4();
    session.forget_warnings();
    let committing = write_rows::commit_alone(session, &batch, (seen.cast_signed(), read.fence), batch_id);
    match time::timeout_at(limits.until + limits.statement, committing).await {
        Ok(Ok(None)) => Ok(None),
        Ok(Ok(Some(_))) if session.was_warned() => Err(CommitError::MaybeNotReplicated),
        Ok(Ok(Some(_))) => {
            assign_revisions(&mut answers, seen);
            Ok(Some(answers))
        }
        // PostgreSQL reports an ERROR only before a commit; FATAL may come at any time.
        Ok(Err(error)) if is_undone(&error) => Err(rows_failed(error, false)),
        Ok(Err(_)) | Err(_) => {
            session.mark_broken();
            Err(CommitError::InDoubt { seen, batch_id, answers })
        }
    }
}

fn is_undone(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|answer| answer.parsed_severity() == Some(Severity::Error))
}
