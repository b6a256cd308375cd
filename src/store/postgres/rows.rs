//! Users as rows.

use tokio_postgres::Row;

use crate::{
    domain::{Age, Email, Entry, Error, LogPosition, Name, Revision, Timestamp, User, UserId},
    store::apply::event,
};

/// The user in the columns from `at` on, in the order of the statements.
pub(super) fn user(row: &Row, at: usize) -> Result<User, Error> {
    Ok(User {
        id: decode(UserId::parse(get(row, at)?))?,
        name: decode(Name::parse(get(row, at + 1)?))?,
        email: decode(Email::parse(get(row, at + 2)?))?,
        age: decode(Age::parse(get(row, at + 3)?))?,
        revision: revision(row, at + 4)?,
        create_time: Timestamp::from_micros(get(row, at + 5)?),
        update_time: Timestamp::from_micros(get(row, at + 6)?),
    })
}

/// The same, where there may be none.
pub(super) fn maybe_user(row: &Row, at: usize) -> Result<Option<User>, Error> {
    match get::<Option<&str>>(row, at)? {
        Some(_) => user(row, at).map(Some),
        None => Ok(None),
    }
}

pub(super) fn users(rows: &[Row]) -> Result<Vec<User>, Error> {
    rows.iter().map(|row| user(row, 0)).collect()
}

/// An entry of the change log: the user, the time and the kind. Where the user is
/// gone, only the id and the revision are there.
pub(super) fn entry(row: &Row) -> Result<Entry, Error> {
    let log_position =
        LogPosition { revision: revision(row, 4)?, time: Timestamp::from_micros(get(row, 7)?) };
    let id = decode(UserId::parse(get(row, 0)?))?;
    let user = match get::<Option<&str>>(row, 2)? {
        Some(_) => Some(user(row, 0)?),
        None => None,
    };
    let event = event(get(row, 8)?, id, user).ok_or("must be a kind of change");
    Ok(Entry { position: log_position, event: decode(event)? })
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
