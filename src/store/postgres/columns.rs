//! The columns of a user, and the steps of the schema that made them.
//!
//! A new field is a step and a column here. **Invariant:** [`COLUMNS`], [`Users`] and
//! [`user`] have one order.

use tokio_postgres::{Row, types::Type};

use super::{
    rows::{decode, get, revision},
    session::Param,
};
use crate::domain::{Age, Email, Error, Fields, Name, Timestamp, User, UserId};

/// The schema, one step a version. Only ever appended to, and no step may take
/// from the release before what it uses.
pub(super) const STEPS: [&str; 2] =
    [include_str!("migrations/0001_users.sql"), include_str!("migrations/0002_after_image.sql")];

pub(super) const COLUMNS: [(&str, Type); 7] = [
    ("id", Type::TEXT),
    ("name", Type::TEXT),
    ("email", Type::TEXT),
    ("age", Type::INT4),
    ("revision", Type::INT8),
    ("create_time", Type::INT8),
    ("update_time", Type::INT8),
];

/// The columns of a user, each as `form` has it.
fn list(form: impl Fn(&str) -> String) -> String {
    COLUMNS.map(|(column, _)| form(column)).join(", ")
}

/// The columns of the table `u`, for [`user`].
pub(super) fn selected() -> String {
    list(|column| format!("u.{column}"))
}

/// Inserts users, an array for each column from parameter `$first` on, or overwrites those
/// with their ids. Revisions are counted back from the counter, which is ours in `meta`.
pub(super) fn put(first: usize, meta: &str) -> String {
    let columns = list(str::to_owned);
    let values = list(|column| match column {
        "revision" => "m.revision + u.revision".into(),
        _ => format!("u.{column}"),
    });
    let arrays: Vec<_> = (first..first + COLUMNS.len()).map(|n| format!("${n}")).collect();
    let set: Vec<_> =
        COLUMNS[1..].iter().map(|(column, _)| format!("{column} = excluded.{column}")).collect();
    format!(
        "INSERT INTO user_service.users ({columns}) SELECT {values}
         FROM UNNEST({}) AS u ({columns}), {meta} m
         ON CONFLICT (id) DO UPDATE SET {}",
        arrays.join(", "),
        set.join(", ")
    )
}

/// The types of the arrays that [`put`] takes.
pub(super) fn arrays() -> Vec<Type> {
    let array = |of| match of {
        Type::TEXT => Type::TEXT_ARRAY,
        Type::INT4 => Type::INT4_ARRAY,
        Type::INT8 => Type::INT8_ARRAY,
        other => unreachable!("no column of a user is a {other}"),
    };
    COLUMNS.map(|(_, of)| array(of)).into()
}

/// Users, column by column.
#[derive(Default)]
pub(super) struct Users<'a> {
    ids: Vec<&'a str>,
    names: Vec<&'a str>,
    emails: Vec<&'a str>,
    ages: Vec<i32>,
    behind: Vec<i64>,
    create_times: Vec<i64>,
    update_times: Vec<i64>,
}

impl<'a> Users<'a> {
    /// Adds a user whose revision is so far behind the counter.
    pub fn push(&mut self, user: &'a User, behind: i64) {
        let User { id, fields: Fields { name, email, age }, revision: _, create_time, update_time } = user;
        self.ids.push(id.as_str());
        self.names.push(name.as_str());
        self.emails.push(email.as_str());
        self.ages.push(age.years().into());
        self.behind.push(behind);
        self.create_times.push(create_time.as_micros());
        self.update_times.push(update_time.as_micros());
    }

    /// The arrays that [`put`] takes.
    pub fn params(&self) -> [Param<'_>; COLUMNS.len()] {
        let Self { ids, names, emails, ages, behind, create_times, update_times } = self;
        [ids, names, emails, ages, behind, create_times, update_times]
    }
}

/// The user in the columns from `at` on.
pub(super) fn user(row: &Row, at: usize) -> Result<User, Error> {
    Ok(User {
        id: decode(UserId::parse(get(row, at)?))?,
        fields: Fields {
            name: decode(Name::parse(get(row, at + 1)?))?,
            email: decode(Email::parse(get(row, at + 2)?))?,
            age: decode(Age::parse(get(row, at + 3)?))?,
        },
        revision: revision(row, at + 4)?,
        create_time: Timestamp::from_micros(get(row, at + 5)?),
        update_time: Timestamp::from_micros(get(row, at + 6)?),
    })
}
