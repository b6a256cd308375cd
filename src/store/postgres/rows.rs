//! Users as rows.

use tokio_postgres::Row;

use super::columns::user;
use crate::{
    domain::{Entry, Error, LogPosition, Revision, Timestamp, User},
    store::after_image::LogRow,
};

/// The user in the columns from `at` on, where there may be none.
pub(super) fn maybe_user(row: &Row, at: usize) -> Result<Option<User>, Error> {
    match get::<Option<&str>>(row, at)? {
        Some(_) => user(row, at).map(Some),
        None => Ok(None),
    }
}

pub(super) fn users(rows: &[Row]) -> Result<Vec<User>, Error> {
    rows.iter().map(|row| user(row, 0)).collect()
}

/// An entry of the change log.
pub(super) fn entry(row: &Row) -> Result<Entry, Error> {
    let position = LogPosition { revision: revision(row, 0)?, time: Timestamp::from_micros(get(row, 1)?) };
    let row = LogRow { position, kind: get(row, 2)?, id: get(row, 3)?, after_image: get(row, 4)? };
    decode(row.into_entry())
}

pub(super) fn revision(row: &Row, column: usize) -> Result<Revision, Error> {
    get(row, column).map(i64::cast_unsigned)
}

pub(super) fn get<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    column: usize,
) -> Result<T, Error> {
    row.try_get(column).map_err(|error| Error::Internal(error.into()))
}

/// What a column held, where it is what the domain allows.
pub(super) fn decode<T>(parsed: Result<T, &'static str>) -> Result<T, Error> {
    parsed.map_err(|rule| Error::Internal(rule.into()))
}
