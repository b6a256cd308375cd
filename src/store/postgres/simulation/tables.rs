//! The tables of the simulated database, and what each statement of the store does to them.

use std::collections::BTreeMap;

use tokio_postgres::types::{FromSql, Type};
use uuid::Uuid;

use super::{
    Bug,
    wire::{Answer, Cell, Row, param},
};
use crate::store::postgres::{columns::COLUMNS, sql::Sql};

/// A value of a column of a user.
#[derive(Clone, Debug)]
enum Value {
    Text(String),
    Int4(i32),
    Int8(i64),
}

/// A row of `users`, in the order of [`COLUMNS`].
#[derive(Clone, Debug)]
pub struct UserRow(Vec<Value>);

impl UserRow {
    pub fn text(&self, column: &str) -> &String {
        let Value::Text(text) = self.value(column) else { panic!("{column} is no text") };
        text
    }

    pub fn revision(&self) -> i64 {
        let Value::Int8(revision) = self.value("revision") else { panic!("a revision is an int8") };
        *revision
    }

    fn value(&self, column: &str) -> &Value {
        let at = COLUMNS.iter().position(|(name, _)| *name == column).expect("a column of a user");
        &self.0[at]
    }
}

/// A row of `changes`, without its revision.
#[derive(Clone, Debug)]
pub struct ChangeRow {
    pub id: String,
    pub image: Option<String>,
    email: Option<String>,
    batch: Uuid,
}

/// A row of `idempotency`, without its key.
#[derive(Clone, Debug)]
struct RequestRow {
    payload: Vec<u8>,
    id: String,
    revision: i64,
}

#[derive(Clone, Debug, Default)]
pub struct Tables {
    pub revision: i64,
    fence: i64,
    pub users: BTreeMap<String, UserRow>,
    pub changes: BTreeMap<i64, ChangeRow>,
    requests: BTreeMap<Vec<u8>, RequestRow>,
}

/// What a statement did, to be done to the committed tables.
#[derive(Clone, Debug)]
pub enum Effect {
    Revision(i64),
    Fence,
    Put(UserRow),
    Delete(String),
    Log(i64, ChangeRow),
    Record(Vec<u8>, RequestEffect),
}

/// The row that a request is known again by.
#[derive(Clone, Debug)]
pub struct RequestEffect(RequestRow);

/// Unique violation, and what a failed check is cast from.
const TAKEN: Answer = Answer::Error("23505");
const CHECK_FAILED: Answer = Answer::Error("22P02");

impl Tables {
    pub fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Revision(revision) => self.revision = self.revision.max(revision),
            Effect::Fence => self.fence += 1,
            Effect::Put(user) => drop(self.users.insert(user.text("id").clone(), user)),
            Effect::Delete(id) => drop(self.users.remove(&id)),
            Effect::Log(revision, change) => drop(self.changes.insert(revision, change)),
            Effect::Record(key, RequestEffect(row)) => drop(self.requests.insert(key, row)),
        }
    }

    /// Runs a statement that needs no lock, or has it. Its effects are done to these tables.
    pub fn run(
        &mut self,
        sql: Sql,
        params: &[Option<Vec<u8>>],
        bug: Bug,
        sequence: &mut i64,
        effects: &mut Vec<Effect>,
    ) -> Answer {
        let types = sql.types();
        let texts = |at| param::<Vec<String>>(params, types, at);
        let number = |at| param::<i64>(params, types, at);
        let before = effects.len();
        let answer = match sql {
            Sql::Known => self.known(&texts(0), &texts(1)),
            Sql::Recorded => self.recorded(&param::<Vec<Vec<u8>>>(params, types, 0)),
            Sql::TakeRevisions => {
                let base = if bug == Bug::Sequence { *sequence } else { self.revision };
                *sequence = base + number(0);
                effects.push(Effect::Revision(*sequence));
                int8s(&[Some(base)])
            }
            Sql::Check => {
                let (seen, ids, emails) = (number(0), texts(1), texts(2));
                let keys = param::<Vec<Vec<u8>>>(params, types, 3);
                let mut newer = self.changes.range(seen + 1..).map(|(_, change)| change);
                let is_changed = newer.any(|change| {
                    ids.contains(&change.id)
                        || change.email.as_ref().is_some_and(|email| emails.contains(email))
                });
                let recorded = keys.iter().filter(|key| self.requests.contains_key(*key)).count();
                let is_recorded = i64::try_from(recorded).unwrap() != number(5);
                let is_fenced = self.fence != number(6) && bug != Bug::NoFence;
                if is_changed || is_recorded || is_fenced { CHECK_FAILED } else { zero() }
            }
            Sql::Delete => {
                let ids = texts(0);
                if ids.iter().any(|id| !self.users.contains_key(id)) {
                    return CHECK_FAILED;
                }
                effects.extend(ids.into_iter().map(Effect::Delete));
                zero()
            }
            Sql::Put => {
                let counter = if bug == Bug::Sequence { *sequence } else { self.revision };
                self.put(params, types, counter).map_or(TAKEN, |puts| done(effects, puts))
            }
            Sql::Log => {
                let counter = if bug == Bug::Sequence { *sequence } else { self.revision };
                self.log(params, types, counter).map_or(TAKEN, |rows| done(effects, rows))
            }
            Sql::CommitAlone => {
                let (count, seen, fence) = (number(0), number(1), number(2));
                let is_moved = self.revision != seen && bug != Bug::BlindCommit;
                if is_moved || (self.fence != fence && bug != Bug::NoFence) {
                    return Answer::Rows(vec![Type::INT8, Type::INT4], Vec::new());
                }
                let base = if bug == Bug::Sequence { *sequence } else { self.revision };
                *sequence = base + count;
                let put = self.put(&params[3..], &types[3..], *sequence);
                let of_log = 3 + COLUMNS.len();
                let log = self.log(&params[of_log..], &types[of_log..], *sequence);
                let (Some(put), Some(log)) = (put, log) else { return TAKEN };
                effects.push(Effect::Revision(*sequence));
                effects.extend(put.into_iter().chain(log));
                let row = vec![Cell::of(&Type::INT8, &base), Cell::of(&Type::INT4, &0_i32)];
                Answer::Rows(vec![Type::INT8, Type::INT4], vec![row])
            }
            Sql::Record => {
                let (keys, payloads) =
                    (param::<Vec<Vec<u8>>>(params, types, 0), param::<Vec<Vec<u8>>>(params, types, 1));
                let behind = param::<Vec<Option<i64>>>(params, types, 3);
                for (((key, payload), id), behind) in keys.into_iter().zip(payloads).zip(texts(2)).zip(behind)
                {
                    let revision = behind.map_or(0, |behind| self.revision + behind);
                    effects.push(Effect::Record(key, RequestEffect(RequestRow { payload, id, revision })));
                }
                zero()
            }
            Sql::LockRevision => int8s(&[Some(self.revision)]),
            Sql::Touch => Answer::Done,
            Sql::Fence => {
                effects.push(Effect::Fence);
                Answer::Done
            }
            Sql::Committed => {
                let (seen, batch) = (number(0), param::<Uuid>(params, types, 1));
                let of_batch = self.changes.range(seen + 1..).find(|(_, change)| change.batch == batch);
                int8s(&[of_batch.map(|(revision, _)| revision - 1)])
            }
            other => unreachable!("writers do not run {other:?}"),
        };
        for effect in &effects[before..] {
            self.apply(effect.clone());
        }
        answer
    }

    /// The counter, the fence, and users by id and by address.
    fn known(&self, ids: &[String], emails: &[String]) -> Answer {
        let mut columns = vec![Type::INT8, Type::INT8];
        columns.extend(user_types());
        let by_id = self.users.values().filter(|user| ids.contains(user.text("id")));
        let by_email = self.users.values().filter(|user| emails.contains(user.text("email")));
        let mut users: Vec<_> = by_id.chain(by_email).map(Some).collect();
        if users.is_empty() {
            users.push(None);
        }
        let rows = users.into_iter().map(|user| {
            let counters = [self.revision, self.fence].map(|counter| Cell::of(&Type::INT8, &counter));
            counters.into_iter().chain(user_cells(user)).collect()
        });
        Answer::Rows(columns, rows.collect())
    }

    /// The rows of a `Log`; `None` where a revision of theirs is taken.
    fn log(&self, params: &[Option<Vec<u8>>], types: &[Type], counter: i64) -> Option<Vec<Effect>> {
        let batch = param::<Uuid>(params, types, 0);
        let behind = param::<Vec<i64>>(params, types, 1);
        let ids = param::<Vec<String>>(params, types, 4);
        let emails = param::<Vec<Option<String>>>(params, types, 5);
        let images = param::<Vec<Option<String>>>(params, types, 6);
        let rows = behind.into_iter().zip(ids).zip(emails).zip(images);
        let row = |(((behind, id), email), image)| {
            let revision = counter + behind;
            let is_taken = self.changes.contains_key(&revision);
            (!is_taken).then_some(Effect::Log(revision, ChangeRow { id, image, email, batch }))
        };
        rows.map(row).collect()
    }

    /// The users of a `Put`; `None` where an address of theirs is taken.
    fn put(&self, params: &[Option<Vec<u8>>], types: &[Type], counter: i64) -> Option<Vec<Effect>> {
        let column = |(at, (name, of)): (usize, &(&str, Type))| match (*name, of) {
            ("revision", _) => values(params, types, at, |behind: i64| Value::Int8(counter + behind)),
            (_, &Type::TEXT) => values(params, types, at, Value::Text),
            (_, &Type::INT4) => values(params, types, at, Value::Int4),
            (_, &Type::INT8) => values(params, types, at, Value::Int8),
            (_, other) => unreachable!("no column of a user is a {other}"),
        };
        let columns: Vec<_> = COLUMNS.iter().enumerate().map(column).collect();
        let user = |n: usize| UserRow(columns.iter().map(|column| column[n].clone()).collect());
        let users: Vec<_> = (0..columns[0].len()).map(user).collect();
        let is_taken = |user: &UserRow| {
            self.users.values().any(|other| {
                other.text("email") == user.text("email")
                    && other.text("id") != user.text("id")
                    && !users.iter().any(|put| put.text("id") == other.text("id"))
            })
        };
        let is_free = !users.iter().any(is_taken);
        is_free.then(|| users.into_iter().map(Effect::Put).collect())
    }

    fn recorded(&self, keys: &[Vec<u8>]) -> Answer {
        let mut columns = vec![Type::BYTEA, Type::BYTEA, Type::TEXT, Type::INT8, Type::TEXT];
        columns.extend(user_types());
        let found = keys.iter().filter_map(|key| self.requests.get_key_value(key));
        let rows = found.map(|(key, request)| {
            let image = self.changes.get(&request.revision).and_then(|change| change.image.clone());
            let mut row = vec![
                Cell::of(&Type::BYTEA, key),
                Cell::of(&Type::BYTEA, &request.payload),
                Cell::of(&Type::TEXT, &request.id),
                Cell::of(&Type::INT8, &request.revision),
                Cell::of(&Type::TEXT, &image),
            ];
            row.extend(user_cells(self.users.get(&request.id)));
            row
        });
        Answer::Rows(columns, rows.collect())
    }
}

/// The values of a parameter that is an array.
fn values<T: for<'a> FromSql<'a>>(
    params: &[Option<Vec<u8>>],
    types: &[Type],
    at: usize,
    value: impl Fn(T) -> Value,
) -> Vec<Value> {
    param::<Vec<T>>(params, types, at).into_iter().map(value).collect()
}

fn user_types() -> Vec<Type> {
    COLUMNS.map(|(_, of)| of).into()
}

fn user_cells(user: Option<&UserRow>) -> Row {
    let Some(user) = user else { return user_types().iter().map(|_| Cell::NULL).collect() };
    let cells = user.0.iter().map(|value| match value {
        Value::Text(text) => Cell::of(&Type::TEXT, text),
        Value::Int4(number) => Cell::of(&Type::INT4, number),
        Value::Int8(number) => Cell::of(&Type::INT8, number),
    });
    cells.collect()
}

fn int8s(values: &[Option<i64>]) -> Answer {
    let row = values.iter().map(|value| Cell::of(&Type::INT8, value)).collect();
    Answer::Rows(vec![Type::INT8; values.len()], vec![row])
}

/// What a statement gives that did what it was asked to.
fn done(effects: &mut Vec<Effect>, more: Vec<Effect>) -> Answer {
    effects.extend(more);
    zero()
}

/// What a check that passes gives.
fn zero() -> Answer {
    Answer::Rows(vec![Type::INT4], vec![vec![Cell::of(&Type::INT4, &0_i32)]])
}
