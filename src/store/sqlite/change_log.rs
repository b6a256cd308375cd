//! The change log, as it is read.

use rusqlite::{Connection, OptionalExtension, Row};

use super::rows;
use crate::{
    domain::{Entry, LogHead, LogPosition, Revision, StoreId, Timestamp, User},
    store::after_image::{self, LogRow},
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
        .prepare_cached(
            "SELECT revision, time, kind, id, after_image FROM changes
             WHERE revision > ?1 ORDER BY revision LIMIT ?2",
        )?
        .query_map((after.cast_signed(), limit.cast_signed()), entry)?
        .collect()
}

fn entry(row: &Row) -> rusqlite::Result<Entry> {
    let position =
        LogPosition { revision: rows::revision(row, 0)?, time: Timestamp::from_micros(row.get(1)?) };
    let row = LogRow {
        position,
        kind: row.get(2)?,
        id: row.get_ref(3)?.as_str()?,
        after_image: row.get_ref(4)?.as_str_or_null()?,
    };
    rows::decode(4, row.into_entry())
}

/// The user as the write with this revision left it.
pub(super) fn user_at(connection: &Connection, revision: Revision) -> rusqlite::Result<Option<User>> {
    connection
        .prepare_cached(
            "SELECT id, after_image FROM changes WHERE revision = ?1 AND after_image IS NOT NULL",
        )?
        .query_row((revision.cast_signed(),), |row| {
            let id = rows::user_id(row, 0)?;
            rows::decode(1, after_image::decode(row.get_ref(1)?.as_str()?, id, revision))
        })
        .optional()
}
