//! Users as rows.

use tokio_postgres::Row;

use crate::domain::{Age, Email, Error, Name, Revision, Timestamp, User, UserId};

/// The user in the columns from `at` on, in the order of the statements.
pub(super) fn user(row: &Row, at: usize) -> Result<User, Error> {
    Ok(User {
        id: good(UserId::parse(get(row, at)?))?,
        name: good(Name::parse(get(row, at + 1)?))?,
        email: good(Email::parse(get(row, at + 2)?))?,
        age: good(Age::parse(get(row, at + 3)?))?,
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
pub(super) fn good<T>(parsed: Result<T, &'static str>) -> Result<T, Error> {
    parsed.map_err(|rule| Error::Internal(rule.into()))
}
