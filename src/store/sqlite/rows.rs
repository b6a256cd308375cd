//! Users as rows.

use rusqlite::{Connection, OptionalExtension, Row, types::Type};

use super::columns;
use crate::domain::{Email, Page, Revision, User, UserId};

pub(super) fn user_id(row: &Row, column: usize) -> rusqlite::Result<UserId> {
    decode(column, UserId::parse(row.get_ref(column)?.as_str()?))
}

pub(super) fn revision(row: &Row, column: usize) -> rusqlite::Result<Revision> {
    row.get(column).map(i64::cast_unsigned)
}

/// What a column held, where it is what the domain allows.
pub(super) fn decode<T>(column: usize, parsed: Result<T, &'static str>) -> rusqlite::Result<T> {
    parsed.map_err(|rule| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, rule.into()))
}

pub(super) fn by_id(connection: &Connection, id: &UserId) -> rusqlite::Result<Option<User>> {
    connection.prepare_cached(&columns::BY_ID)?.query_row((id.as_str(),), columns::user).optional()
}

pub(super) fn by_email(connection: &Connection, email: &Email) -> rusqlite::Result<Option<User>> {
    connection.prepare_cached(&columns::BY_EMAIL)?.query_row((email.as_str(),), columns::user).optional()
}

/// The first users after an id, at most `size`.
pub(super) fn page(connection: &Connection, after: Option<&UserId>, size: usize) -> rusqlite::Result<Page> {
    // No id is empty, so every id comes after the empty text. One row more than
    // asked for tells whether there is more.
    let mut users = connection
        .prepare_cached(&columns::PAGE)?
        .query_map((after.map_or("", UserId::as_str), (size + 1).cast_signed()), columns::user)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let more = users.len() > size;
    users.truncate(size);
    Ok(Page { users, more })
}

/// The last revision given out.
pub(super) fn current_revision(connection: &Connection) -> rusqlite::Result<Revision> {
    connection.prepare_cached("SELECT revision FROM meta")?.query_row((), |row| revision(row, 0))
}
