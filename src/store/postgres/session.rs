//! One connection that works.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time};
use tokio_postgres::{
    Client, Error, Row, Statement,
    error::SqlState,
    types::{ToSql, Type},
};

use super::sql::Sql;

/// How often a connection is asked whether it is still there: nobody else may ask,
/// because a service without its store gets no calls.
const PINGS: Duration = Duration::from_secs(1);

/// Every statement goes by an index, whatever the tables' statistics say of tables
/// that were small a minute ago, and is planned once.
const PLANNING: &str = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off";

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
            client.batch_execute(PLANNING).await?;
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
        // 0 would be no limit.
        let limit = limit.as_millis().max(1);
        self.client
            .batch_execute(&format!(
                "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL statement_timeout = {limit}; SET LOCAL lock_timeout = {limit}; \
                 SET LOCAL idle_in_transaction_session_timeout = {limit}"
            ))
            .await
    }

    pub async fn rollback(&self, limit: Duration) {
        let rollback = self.client.batch_execute("ROLLBACK");
        if !matches!(time::timeout(limit, rollback).await, Ok(Ok(()))) {
            self.abandon();
        }
    }

    /// Takes every lock that a write needs, waiting `lock_timeout` for each, and lets them
    /// go; whether it got them. Nothing is written. `limit` bounds each answer.
    pub async fn try_write_locks(&self, lock_timeout: Duration, limit: Duration) -> bool {
        // The counter first: a migration holds it while it waits for tables.
        let locks = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = {}; \
             SELECT FROM user_service.meta FOR UPDATE; \
             LOCK TABLE user_service.meta, user_service.users, user_service.changes, \
             user_service.idempotency IN ROW EXCLUSIVE MODE; ROLLBACK",
            lock_timeout.as_millis().max(1)
        );
        match time::timeout(limit, self.client.batch_execute(&locks)).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) if !ends_connection(&error) => self.rollback(limit).await,
            Ok(Err(_)) | Err(_) => self.abandon(),
        }
        false
    }

    /// Until somebody asks for another connection, or this one is silent for `limit`.
    pub async fn lost(&self, limit: Duration) {
        let silent = async {
            loop {
                time::sleep(PINGS).await;
                // Any answer is one.
                if time::timeout(limit, self.client.check_connection()).await.is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            () = self.broken.notified() => {}
            () = silent => {}
        }
    }

    /// Asks for another connection in place of this one.
    pub fn abandon(&self) {
        self.broken.notify_one();
    }

    pub fn forget_warnings(&self) {
        self.warned.store(false, Ordering::Release);
    }

    pub fn was_warned(&self) -> bool {
        self.warned.load(Ordering::Acquire)
    }
}

/// Whether an error says that this connection will not do: it is broken, or its
/// server goes or is a standby.
fn ends_connection(error: &Error) -> bool {
    error
        .code()
        .is_none_or(|code| *code == SqlState::READ_ONLY_SQL_TRANSACTION || code.code().starts_with("57P0"))
}
