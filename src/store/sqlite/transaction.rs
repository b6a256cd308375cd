//! The write pipeline's transaction, in SQL.

use rusqlite::{Connection, OptionalExtension};

use super::{cache::Changed, change_log, columns, rows};
use crate::{
    domain::{Email, Error, Idempotency, Revision, Timestamp, User, UserId},
    store::{
        after_image,
        apply::{ChangeKind, RecordedWrite, Transaction},
    },
    util::fault_point::fault_point,
};

/// A transaction that is open on the writer's connection.
pub(super) struct SqlTransaction<'a> {
    connection: &'a Connection,
    /// The last revision given out, which the row in `meta` says only once the
    /// transaction commits.
    pub revision: Revision,
    /// The users that were changed so far, for the cache.
    pub changed: Changed,
}

/// Why a write was not made.
pub(super) enum ApplyError {
    /// By the rules.
    Refused(Error),
    Sql(rusqlite::Error),
}

impl From<Error> for ApplyError {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<rusqlite::Error> for ApplyError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl<'a> SqlTransaction<'a> {
    pub fn begin(connection: &'a Connection) -> rusqlite::Result<Self> {
        let this = Self { connection, revision: 0, changed: Changed::new() };
        this.run("BEGIN IMMEDIATE")?;
        let revision = rows::current_revision(connection)?;
        Ok(Self { revision, ..this })
    }

    /// Executes a statement without parameters.
    pub fn run(&self, sql: &str) -> rusqlite::Result<()> {
        fault_point();
        let done = self.connection.prepare_cached(sql)?.execute(()).map(drop);
        fault_point();
        done
    }

    /// Runs one of the statements that insert a user; whether a row was inserted or changed.
    fn insert(&self, user: &User, sql: &str) -> rusqlite::Result<bool> {
        fault_point();
        let rows = self.connection.prepare_cached(sql)?.execute(columns::params(user))?;
        Ok(rows > 0)
    }

    fn log(&mut self, kind: ChangeKind, user: &User, now: Timestamp) -> Result<(), ApplyError> {
        self.append(kind, user.revision, now, &user.id, Some(after_image::encode(user)))?;
        self.changed.insert(user.id.clone(), Some(user.clone()));
        Ok(())
    }

    /// Adds a row to the change log.
    fn append(
        &mut self,
        kind: ChangeKind,
        revision: Revision,
        now: Timestamp,
        id: &UserId,
        after_image: Option<String>,
    ) -> rusqlite::Result<()> {
        fault_point();
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO changes (revision, time, kind, id, after_image) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        let row = (revision.cast_signed(), now.as_micros(), kind as u8, id.as_str(), after_image);
        one(insert.execute(row)?)?;
        self.revision = revision;
        Ok(())
    }

    /// Writes the last revision down, for the commit that follows.
    pub fn save_revision(&self) -> rusqlite::Result<()> {
        fault_point();
        let mut update = self.connection.prepare_cached("UPDATE meta SET revision = ?1")?;
        one(update.execute((self.revision.cast_signed(),))?)
    }
}

/// Fails unless a statement changed one row: a trigger may leave rows out and say nothing.
fn one(rows: usize) -> rusqlite::Result<()> {
    if rows == 1 { Ok(()) } else { Err(rusqlite::Error::StatementChangedRows(rows)) }
}

impl Transaction for SqlTransaction<'_> {
    type Error = ApplyError;

    fn find_recorded(
        &mut self,
        key: &[u8; 32],
        since: Timestamp,
    ) -> Result<Option<RecordedWrite>, ApplyError> {
        let recorded = self
            .connection
            .prepare_cached("SELECT payload, id, revision FROM idempotency WHERE key = ?1 AND time >= ?2")?
            .query_row((key, since.as_micros()), |row| {
                Ok(RecordedWrite {
                    payload: row.get(0)?,
                    id: rows::user_id(row, 1)?,
                    revision: rows::revision(row, 2)?,
                })
            })
            .optional()?;
        Ok(recorded)
    }

    fn user_by_id(&mut self, id: &UserId) -> Result<Option<User>, ApplyError> {
        Ok(rows::by_id(self.connection, id)?)
    }

    fn user_by_email(&mut self, email: &Email) -> Result<Option<User>, ApplyError> {
        Ok(rows::by_email(self.connection, email)?)
    }

    fn email_owner(&mut self, email: &Email) -> Result<Option<UserId>, ApplyError> {
        let owner = self
            .connection
            .prepare_cached("SELECT id FROM users WHERE email = ?1")?
            .query_row((email.as_str(),), |row| rows::user_id(row, 0))
            .optional()?;
        Ok(owner)
    }

    fn user_at_revision(&mut self, revision: Revision) -> Result<Option<User>, ApplyError> {
        Ok(change_log::user_at(self.connection, revision)?)
    }

    fn next_revision(&self) -> Revision {
        self.revision + 1
    }

    fn insert_if_absent(&mut self, user: &User, now: Timestamp) -> Result<bool, ApplyError> {
        let new = self.insert(user, &columns::INSERT)?;
        if new {
            self.log(ChangeKind::Created, user, now)?;
        }
        Ok(new)
    }

    fn put(&mut self, kind: ChangeKind, user: &User, now: Timestamp) -> Result<(), ApplyError> {
        let put = self.insert(user, &columns::PUT)?;
        one(put.into())?;
        self.log(kind, user, now)
    }

    fn delete(&mut self, id: &UserId, now: Timestamp) -> Result<(), ApplyError> {
        let revision = self.next_revision();
        one(self.connection.prepare_cached("DELETE FROM users WHERE id = ?1")?.execute((id.as_str(),))?)?;
        self.append(ChangeKind::Deleted, revision, now, id, None)?;
        self.changed.insert(id.clone(), None);
        Ok(())
    }

    fn record(
        &mut self,
        idempotency: &Idempotency,
        id: &UserId,
        revision: Revision,
        now: Timestamp,
    ) -> Result<(), ApplyError> {
        fault_point();
        // In place of a row that is too old to count and not cleared away yet.
        let rows = self
            .connection
            .prepare_cached(
                "INSERT OR REPLACE INTO idempotency (key, payload, id, revision, time)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute((
                idempotency.key,
                idempotency.payload,
                id.as_str(),
                revision.cast_signed(),
                now.as_micros(),
            ))?;
        Ok(one(rows)?)
    }
}
