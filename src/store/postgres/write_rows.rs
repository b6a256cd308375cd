//! What a batch writes: users, change log and recorded requests, a statement each, or one
//! statement for all of it.

use futures_util::future;
use uuid::Uuid;

use super::{
    batch::Batch,
    columns::Users,
    session::{Param, Session},
    sql::Sql,
};
use crate::{domain::User, store::after_image};

pub(super) async fn users(session: &Session, batch: &Batch) -> Result<(), tokio_postgres::Error> {
    let (gone, there) = batch.dirty_users();
    let count = i64::try_from(gone.len()).unwrap_or(i64::MAX);
    let delete: [Param; 2] = [&gone, &count];
    let delete =
        async { if gone.is_empty() { Ok(Vec::new()) } else { session.rows(Sql::Delete, &delete).await } };
    let users = columns(batch, &there);
    let put = users.params();
    let put = async { if there.is_empty() { Ok(Vec::new()) } else { session.rows(Sql::Put, &put).await } };
    let (deleted, put) = future::join(delete, put).await;
    deleted.and(put).map(drop)
}

fn columns<'a>(batch: &Batch, there: &[&'a User]) -> Users<'a> {
    let mut users = Users::default();
    for user in there {
        users.push(user, batch.offset_from_last(user.revision));
    }
    users
}

/// The changes of a batch, column by column.
struct Log<'a> {
    batch_id: Uuid,
    behind: Vec<i64>,
    times: Vec<i64>,
    kinds: Vec<i32>,
    ids: Vec<&'a str>,
    emails: Vec<Option<&'a str>>,
    images: Vec<Option<String>>,
}

impl<'a> Log<'a> {
    fn of(batch: &'a Batch, batch_id: Uuid) -> Self {
        let rows = || batch.log.iter();
        let users = || rows().map(|row| row.user.as_ref());
        Self {
            batch_id,
            behind: (1 - batch.count()..=0).collect(),
            times: rows().map(|row| row.time.as_micros()).collect(),
            kinds: rows().map(|row| row.kind as i32).collect(),
            ids: rows().map(|row| row.id.as_str()).collect(),
            emails: users().map(|user| user.map(|user| user.fields.email.as_str())).collect(),
            images: users().map(|user| user.map(after_image::encode)).collect(),
        }
    }

    fn params(&self) -> [Param<'_>; 7] {
        let Self { batch_id, behind, times, kinds, ids, emails, images } = self;
        [batch_id, behind, times, kinds, ids, emails, images]
    }
}

pub(super) async fn log(
    session: &Session,
    batch: &Batch,
    batch_id: Uuid,
) -> Result<(), tokio_postgres::Error> {
    if batch.log.is_empty() {
        return Ok(());
    }
    session.rows(Sql::Log, &Log::of(batch, batch_id).params()).await.map(drop)
}

/// Commits a batch of users that are there afterwards, unless the counter or the fence has
/// moved; the counter before the batch.
pub(super) async fn commit_alone(
    session: &Session,
    batch: &Batch,
    (seen, fence): (i64, i64),
    batch_id: Uuid,
) -> Result<Option<i64>, tokio_postgres::Error> {
    let (count, log) = (batch.count(), Log::of(batch, batch_id));
    let (_, there) = batch.dirty_users();
    let users = columns(batch, &there);
    let counters: [Param; 3] = [&count, &seen, &fence];
    let params = [&counters[..], &users.params(), &log.params()].concat();
    let rows = session.rows(Sql::CommitAlone, &params).await?;
    rows.first().map(|row| row.try_get(0)).transpose()
}

pub(super) async fn requests(session: &Session, batch: &Batch) -> Result<(), tokio_postgres::Error> {
    if batch.idempotency_rows.is_empty() {
        return Ok(());
    }
    let rows = || batch.idempotency_rows.values();
    let keys: Vec<_> = rows().map(|row| row.idempotency.key.as_slice()).collect();
    let payloads: Vec<_> = rows().map(|row| row.idempotency.payload.as_slice()).collect();
    let ids: Vec<_> = rows().map(|row| row.id.as_str()).collect();
    // None where it changed nothing.
    let behind: Vec<_> =
        rows().map(|row| (row.revision > 0).then(|| batch.offset_from_last(row.revision))).collect();
    let times: Vec<_> = rows().map(|row| row.time.as_micros()).collect();
    session.rows(Sql::Record, &[&keys, &payloads, &ids, &behind, &times]).await.map(drop)
}
