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
pub(super) enum CommitOutcome {
    /// Committed behind this revision, and as durable as was asked for.
    Durable {
        base: Revision,
    },
    /// Committed where it was made; a standby that it should be on may lack it.
    NotReplicated,
    RolledBack,
}

/// Increments the fence, and looks the batch up. The increment needs the counter's row
/// lock, so every older transaction has ended; a delayed one fails its fence check.
pub(super) async fn resolve(
    session: &Session,
    seen: Revision,
    batch_id: Uuid,
    limit: Duration,
) -> Result<CommitOutcome, Error> {
    session.forget_warnings();
    let seen = seen.cast_signed();
    let work = async {
        let (begun, fenced, row, committed) = future::join4(
            session.begin(limit),
            session.rows(Sql::Fence, &[]),
            session.row(Sql::Committed, &[&seen, &batch_id]),
            session.client.batch_execute("COMMIT"),
        )
        .await;
        begun.and(fenced.map(drop)).and(committed).and(row)
    };
    let base: Option<i64> = match time::timeout(limit, work).await {
        Ok(Ok(row)) => rows::get(&row, 0)?,
        Ok(Err(error)) => {
            session.mark_broken();
            return Err(failed(error));
        }
        Err(_) => {
            session.mark_broken();
            return Err(Error::OutcomeUnknown);
        }
    };
    Ok(match base.map(i64::cast_unsigned) {
        None => CommitOutcome::RolledBack,
        // This commit came after that one, and waited for the same standbys.
        Some(base) if !session.was_warned() => CommitOutcome::Durable { base },
        Some(_) => CommitOutcome::NotReplicated,
    })
}

/// Makes sure that all that can be read is durable: a commit that comes after all
/// of it waits for the same standbys.
pub(super) async fn confirm_durable(session: &Session, limit: Duration) -> bool {
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
    let confirmed = matches!(time::timeout(limit, work).await, Ok(Ok(()))) && !session.was_warned();
    if !confirmed {
        session.mark_broken();
    }
    confirmed
}
