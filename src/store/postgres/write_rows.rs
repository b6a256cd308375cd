//! What a batch writes: users, change log and recorded requests, a statement each.

use futures_util::future;
use uuid::Uuid;

use super::{
    batch::Batch,
    columns::Users,
    session::{Param, Session},
    sql::Sql,
};
use crate::store::after_image;

pub(super) async fn users(session: &Session, batch: &Batch) -> Result<(), tokio_postgres::Error> {
    let (gone, there) = batch.dirty_users();
    let count = i64::try_from(gone.len()).unwrap_or(i64::MAX);
    let delete: [Param; 2] = [&gone, &count];
    let delete =
        async { if gone.is_empty() { Ok(Vec::new()) } else { session.rows(Sql::Delete, &delete).await } };
    let mut users = Users::default();
    for user in &there {
        users.push(user, batch.offset_from_last(user.revision));
    }
    let put = users.params();
    let put = async { if there.is_empty() { Ok(Vec::new()) } else { session.rows(Sql::Put, &put).await } };
    let (deleted, put) = future::join(delete, put).await;
    deleted.and(put).map(drop)
}

pub(super) async fn log(
    session: &Session,
    batch: &Batch,
    batch_id: Uuid,
) -> Result<(), tokio_postgres::Error> {
    if batch.log.is_empty() {
        return Ok(());
    }
    let behind: Vec<_> = (1 - batch.count()..=0).collect();
    let times: Vec<_> = batch.log.iter().map(|row| row.time.as_micros()).collect();
    let kinds: Vec<_> = batch.log.iter().map(|row| row.kind as i32).collect();
    let ids: Vec<_> = batch.log.iter().map(|row| row.id.as_str()).collect();
    let users = || batch.log.iter().map(|row| row.user.as_ref());
    let emails: Vec<_> = users().map(|user| user.map(|user| user.fields.email.as_str())).collect();
    let images: Vec<_> = users().map(|user| user.map(after_image::encode)).collect();
    let params: [Param; 7] = [&batch_id, &behind, &times, &kinds, &ids, &emails, &images];
    session.rows(Sql::Log, &params).await.map(drop)
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
