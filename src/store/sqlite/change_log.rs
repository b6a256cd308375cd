//! The change log, as it is read.

use rusqlite::{Connection, OptionalExtension, Row, types::Type};

use super::rows;
use crate::{
    domain::{Entry, LogHead, LogPosition, Revision, StoreId, Timestamp},
    store::apply::event,
};

pub(super) fn log_head(connection: &Connection) -> rusqlite::Result<LogHead> {
    let (store, revision) = connection
        .prepare_cached("SELECT store_id, revision FROM meta")?
        .query_row((), |row| Ok((StoreId(row.get(0)?), rows::revision(row, 1)?)))?;
    let time = connection
        .prepare_cached("SELECT time FROM changes WHERE revision = ?1")?
        .query_row((revision.cast_signed(),), |row| row.get(0))
        .optional()?;
    let time = time.map_or(LogPosition::BEGINNING.time, Timestamp::from_micros);
    Ok(LogHead { store, newest: LogPosition { revision, time } })
}

/// The first entries after a revision.
pub(super) fn entries(
    connection: &Connection,
    after: Revision,
    limit: usize,
) -> rusqlite::Result<Vec<Entry>> {
    connection
        .prepare_cached(concat!(
            "SELECT ",
            rows::user_columns!(),
            ", time, kind FROM changes WHERE revision > ?1 ORDER BY revision LIMIT ?2"
        ))?
        .query_map((after.cast_signed(), limit.cast_signed()), entry)?
        .collect()
}

fn entry(row: &Row) -> rusqlite::Result<Entry> {
    let id = rows::user_id(row, 0)?;
    let user = if row.get_ref(2)? == rusqlite::types::ValueRef::Null { None } else { Some(rows::user(row)?) };
    let time = Timestamp::from_micros(row.get(7)?);
    let event = event(row.get(8)?, id, user).ok_or_else(|| {
        rusqlite::Error::FromSqlConversionFailure(8, Type::Integer, "must be a kind of change".into())
    })?;
    Ok(Entry { position: LogPosition { revision: rows::revision(row, 4)?, time }, event })
}
