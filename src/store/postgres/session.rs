//! One connection that works.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;
use tokio_postgres::{
    Client, Error, Row, Statement,
    error::SqlState,
    types::{ToSql, Type},
};

use super::sql::Sql;

pub(super) type Param<'a> = &'a (dyn ToSql + Sync);

/// A connection, which calls may share: their statements travel one behind the
/// other, and nobody waits for another's answer before asking.
pub(super) struct Session {
    pub client: Client,
    /// In the order of [`Sql::ALL`]; `None` where nothing is to outlive a
    /// transaction, as behind a pooler.
    statements: Option<Vec<Statement>>,
    /// Whether the server warned of anything.
    warned: Arc<AtomicBool>,
    broken: Notify,
}

impl Session {
    /// Makes the statements known where they are to be. The connection must be
    /// driven meanwhile.
    pub async fn new(client: Client, prepared: bool, warned: Arc<AtomicBool>) -> Result<Self, Error> {
        let statements = if prepared {
            let prepare = |sql: &Sql| client.prepare_typed(sql.text(), sql.types());
            Some(futures_util::future::try_join_all(Sql::ALL.iter().map(prepare)).await?)
        } else {
            None
        };
        Ok(Self { client, statements, warned, broken: Notify::new() })
    }

    /// Runs one statement. It is on its way when this is polled for the first time.
    pub async fn rows(&self, sql: Sql, params: &[Param<'_>]) -> Result<Vec<Row>, Error> {
        let rows = if let Some(statements) = &self.statements {
            self.client.query(&statements[sql as usize], params).await
        } else {
            let params = params.iter().copied().zip(sql.types().iter().cloned());
            self.client.query_typed(sql.text(), &params.collect::<Vec<(Param, Type)>>()).await
        };
        rows.inspect_err(|error| {
            if ends_connection(error) {
                self.abandon();
            }
        })
    }

    /// Runs one statement that gives one row.
    pub async fn row(&self, sql: Sql, params: &[Param<'_>]) -> Result<Row, Error> {
        Ok(self.rows(sql, params).await?.swap_remove(0))
    }

    /// Begins a transaction that the server itself ends when nobody else does.
    pub async fn begin(&self, limit: Duration) -> Result<(), Error> {
        let limit = limit.as_millis();
        self.client
            .batch_execute(&format!(
                "BEGIN; SET LOCAL statement_timeout = {limit}; SET LOCAL lock_timeout = {limit}; \
                 SET LOCAL idle_in_transaction_session_timeout = {limit}"
            ))
            .await
    }

    pub async fn rollback(&self) {
        if self.client.batch_execute("ROLLBACK").await.is_err() {
            self.abandon();
        }
    }

    /// Asks for another connection in place of this one.
    pub fn abandon(&self) {
        self.broken.notify_one();
    }

    /// Until somebody asks for another one.
    pub async fn abandoned(&self) {
        self.broken.notified().await;
    }

    pub fn forget_warnings(&self) {
        self.warned.store(false, Ordering::Release);
    }

    pub fn was_warned(&self) -> bool {
        self.warned.load(Ordering::Acquire)
    }
}

/// Whether an error says that this server will not do: it goes, or is a standby.
fn ends_connection(error: &Error) -> bool {
    error.is_closed()
        || error.code().is_some_and(|code| {
            *code == SqlState::READ_ONLY_SQL_TRANSACTION || code.code().starts_with("57P0")
        })
        || error.code().is_none()
}
