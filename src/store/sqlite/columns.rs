//! The columns of a user, and the steps of the schema that made them.
//!
//! A new field is a step and a column here. **Invariant:** [`COLUMNS`], [`params`] and
//! [`user`] have one order.

use std::sync::LazyLock;

use rusqlite::{Row, types::ToSqlOutput};

use super::rows::{decode, revision, user_id};
use crate::domain::{Age, Email, Fields, Name, Timestamp, User};

/// The schema, one step a version. Only ever appended to.
pub(super) const MIGRATIONS: [&str; 2] =
    [include_str!("migrations/0001_users.sql"), include_str!("migrations/0002_after_image.sql")];

const COLUMNS: [&str; 7] = ["id", "name", "email", "age", "revision", "create_time", "update_time"];

pub(super) static BY_ID: LazyLock<String> = LazyLock::new(|| select("id = ?1"));
pub(super) static BY_EMAIL: LazyLock<String> = LazyLock::new(|| select("email = ?1"));
pub(super) static PAGE: LazyLock<String> = LazyLock::new(|| select("id > ?1 ORDER BY id LIMIT ?2"));

/// Inserts a user, unless its id or its address is taken.
pub(super) static INSERT: LazyLock<String> = LazyLock::new(|| insert("DO NOTHING"));

/// Inserts a user, or overwrites the one with its id.
pub(super) static PUT: LazyLock<String> = LazyLock::new(|| {
    let set: Vec<_> = COLUMNS[1..].iter().map(|column| format!("{column} = excluded.{column}")).collect();
    insert(&format!("(id) DO UPDATE SET {}", set.join(", ")))
});

fn select(condition: &str) -> String {
    format!("SELECT {} FROM users WHERE {condition}", COLUMNS.join(", "))
}

fn insert(on_conflict: &str) -> String {
    let places = vec!["?"; COLUMNS.len()].join(", ");
    format!("INSERT INTO users ({}) VALUES ({places}) ON CONFLICT {on_conflict}", COLUMNS.join(", "))
}

/// What the columns of this user hold.
pub(super) fn params(user: &User) -> [ToSqlOutput<'_>; COLUMNS.len()] {
    let User { id, fields: Fields { name, email, age }, revision, create_time, update_time } = user;
    [
        id.as_str().into(),
        name.as_str().into(),
        email.as_str().into(),
        age.years().into(),
        revision.cast_signed().into(),
        create_time.as_micros().into(),
        update_time.as_micros().into(),
    ]
}

/// The user of a row.
pub(super) fn user(row: &Row) -> rusqlite::Result<User> {
    let text = |column: usize| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
    Ok(User {
        id: user_id(row, 0)?,
        fields: Fields {
            name: decode(1, Name::parse(text(1)?))?,
            email: decode(2, Email::parse(text(2)?))?,
            age: decode(3, Age::parse(row.get(3)?))?,
        },
        revision: revision(row, 4)?,
        create_time: Timestamp::from_micros(row.get(5)?),
        update_time: Timestamp::from_micros(row.get(6)?),
    })
}
