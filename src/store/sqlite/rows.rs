//! Users as rows.

use rusqlite::{Connection, OptionalExtension, Row, types::Type};

use crate::domain::{Age, Email, Name, Page, Revision, Timestamp, User, UserId};

/// The columns that [`user`] reads, in its order.
macro_rules! user_columns {
    () => {
        "id, name, email, age, revision, create_time, update_time"
    };
}
pub(super) use user_columns;

pub(super) fn user(row: &Row) -> rusqlite::Result<User> {
    let text = |column: usize| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
    Ok(User {
        id: user_id(row, 0)?,
        name: decode(1, Name::parse(text(1)?))?,
        email: decode(2, Email::parse(text(2)?))?,
        age: decode(3, Age::parse(row.get(3)?))?,
        revision: revision(row, 4)?,
        create_time: Timestamp::from_micros(row.get(5)?),
        update_time: Timestamp::from_micros(row.get(6)?),
    })
}

pub(super) fn user_id(row: &Row, column: usize) -> rusqlite::Result<UserId> {
    decode(column, UserId::parse(row.get_ref(column)?.as_str()?))
}

pub(super) fn revision(row: &Row, column: usize) -> rusqlite::Result<Revision> {
    row.get(column).map(i64::cast_unsigned)
}

/// What a column held, where it is what the domain allows.
fn decode<T>(column: usize, parsed: Result<T, &'static str>) -> rusqlite::Result<T> {
    parsed.map_err(|rule| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, rule.into()))
}

pub(super) fn by_id(connection: &Connection, id: &UserId) -> rusqlite::Result<Option<User>> {
    connection
        .prepare_cached(concat!("SELECT ", user_columns!(), " FROM users WHERE id = ?1"))?
        .query_row((id.as_str(),), user)
        .optional()
}

pub(super) fn by_email(connection: &Connection, email: &Email) -> rusqlite::Result<Option<User>> {
    connection
        .prepare_cached(concat!("SELECT ", user_columns!(), " FROM users WHERE email = ?1"))?
        .query_row((email.as_str(),), user)
        .optional()
}

/// The first users after an id, at most `size`.
pub(super) fn page(connection: &Connection, after: Option<&UserId>, size: usize) -> rusqlite::Result<Page> {
    // No id is empty, so every id comes after the empty text. One row more than
    // asked for tells whether there is more.
    let mut users = connection
        .prepare_cached(concat!(
            "SELECT ",
            user_columns!(),
            " FROM users WHERE id > ?1 ORDER BY id LIMIT ?2"
        ))?
        .query_map((after.map_or("", UserId::as_str), (size + 1).cast_signed()), user)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let more = users.len() > size;
    users.truncate(size);
    Ok(Page { users, more })
}

/// The last revision given out.
pub(super) fn current_revision(connection: &Connection) -> rusqlite::Result<Revision> {
    connection.prepare_cached("SELECT revision FROM meta")?.query_row((), |row| revision(row, 0))
}
