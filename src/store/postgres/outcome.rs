//! What became of a commit that got no answer, and whether what can be read is as
//! durable as was asked for.

use std::time::Duration;

use futures_util::future;
use tokio::time;
use uuid::Uuid;

use super::{commit::failed, rows, session::Session, sql::Sql};
use crate::domain::{Error, Revision};

/// What became of a transaction that was in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Committed behind this revision, and as durable as was asked for.
    Durable {
        base: Revision,
    },
    /// Committed where it was made; a standby that it should be on may lack it.
    Local,
    Undone,
}

/// Finds that out. Whoever holds the counter has the fence to themselves: a
/// transaction that had it before has ended, and one that is still on its way will
/// find the fence moved and fail.
pub(super) async fn look(
    session: &Session,
    seen: Revision,
    tag: Uuid,
    limit: Duration,
) -> Result<Outcome, Error> {
    session.forget_warnings();
    let seen = seen.cast_signed();
    let work = async {
        let (begun, fenced, row, committed) = future::join4(
            session.begin(limit),
            session.rows(Sql::Fence, &[]),
            session.row(Sql::Committed, &[&seen, &tag]),
            session.client.batch_execute("COMMIT"),
        )
        .await;
        begun.and(fenced.map(drop)).and(committed).and(row)
    };
    let base: Option<i64> = match time::timeout(limit, work).await {
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
    Ok(match base.map(i64::cast_unsigned) {
        None => Outcome::Undone,
        // This commit came after that one, and waited for the same standbys.
        Some(base) if !session.was_warned() => Outcome::Durable { base },
        Some(_) => Outcome::Local,
    })
}

/// Makes sure that all that can be read is durable: a commit that comes after all
/// of it waits for the same standbys.
pub(super) async fn settle(session: &Session, limit: Duration) -> bool {
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
