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

use super::{pooler, sql::Sql};
use crate::util::fault_point::fault_point;

/// How often a connection is checked. No call would find a broken one, because a service
/// without its store gets no calls.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// Every statement uses an index, also while the statistics still describe small tables,
/// and is planned once.
const PLANNER_SETTINGS: &str =
    "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off";

/// The server's process, and what to set against settings of the login with which a
/// commit would be answered too early, or the warning that it may not be durable be held
/// back.
const ABOUT: &str = "SELECT pg_backend_pid(),
    CASE current_setting('synchronous_commit')
        WHEN 'off' THEN '; SET LOCAL synchronous_commit = on' ELSE '' END
    || CASE current_setting('client_min_messages')
        WHEN 'error' THEN '; SET LOCAL client_min_messages = warning' ELSE '' END";

pub(super) type Param<'a> = &'a (dyn ToSql + Sync);

/// A connection that calls share: their statements are pipelined, so none waits for
/// another's answer before it is sent.
pub(super) struct Session {
    pub client: Client,
    /// In the order of [`Sql::ALL`]; `None` where nothing is to outlive a
    /// transaction, as behind a pooler.
    statements: Option<Vec<Statement>>,
    /// Whether the server does not know them any more, or not as they are.
    stale: AtomicBool,
    lasting: Arc<Lasting>,
    /// What every transaction sets besides its limits.
    corrections: String,
    /// Whether a statement without a transaction around it has the same limits and settings.
    pub has_limits: bool,
    /// Whether the server warned of anything.
    warned: Arc<AtomicBool>,
    is_broken: AtomicBool,
    broken: Notify,
}

impl Session {
    /// Makes the statements known where they last. The connection must be driven
    /// during this call.
    pub async fn new(
        client: Client,
        lasting: Arc<Lasting>,
        limit: Duration,
        warned: Arc<AtomicBool>,
    ) -> Result<Self, Error> {
        let about = client.query_typed(ABOUT, &[]).await?.swap_remove(0);
        if lasting.get() && pooler::is_between(&client, about.try_get(0)?).await? {
            lasting.end("a pooler stands between the store and its database");
        }
        let prepared = if lasting.get() { Some(prepare(&client, limit).await) } else { None };
        let statements = match prepared.transpose() {
            Err(error) if is_lost_statement(&error) => {
                lasting.end("prepared statements of several connections are mixed up");
                None
            }
            statements => statements?,
        };
        let (stale, is_broken) = (AtomicBool::new(false), AtomicBool::new(false));
        let (corrections, broken) = (about.try_get::<_, String>(1)?, Notify::new());
        let has_limits = statements.is_some() && corrections.is_empty();
        Ok(Self { client, statements, stale, lasting, corrections, has_limits, warned, is_broken, broken })
    }

    /// Runs one statement. It is on its way when this is polled for the first time.
    pub async fn rows(&self, sql: Sql, params: &[Param<'_>]) -> Result<Vec<Row>, Error> {
        fault_point();
        let statements = self.statements.as_ref().filter(|_| !self.stale.load(Ordering::Acquire));
        let rows = if let Some(statements) = statements {
            self.client.query(&statements[sql as usize], params).await
        } else {
            let params = params.iter().copied().zip(sql.types().iter().cloned());
            self.client.query_typed(sql.text(), &params.collect::<Vec<(Param, Type)>>()).await
        };
        rows.inspect_err(|error| {
            if is_lost_statement(error) {
                self.lasting.end("prepared statements were lost between transactions");
            }
            if is_stale(error) && !self.stale.swap(true, Ordering::AcqRel) {
                tracing::info!("a connection to the database goes on without prepared statements");
            }
            if ends_connection(error) {
                self.mark_broken();
            }
        })
    }

    /// Runs one statement that gives one row.
    pub async fn row(&self, sql: Sql, params: &[Param<'_>]) -> Result<Row, Error> {
        Ok(self.rows(sql, params).await?.swap_remove(0))
    }

    /// Begins a transaction with a time limit of the server.
    pub async fn begin(&self, limit: Duration) -> Result<(), Error> {
        // 0 would be no limit.
        let limit = limit.as_millis().max(1);
        fault_point();
        let corrections = &self.corrections;
        self.client
            .batch_execute(&format!(
                "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL statement_timeout = {limit}; SET LOCAL lock_timeout = {limit}; \
                 SET LOCAL idle_in_transaction_session_timeout = {limit}{corrections}"
            ))
            .await
    }

    pub async fn rollback(&self, limit: Duration) {
        fault_point();
        let rollback = self.client.batch_execute("ROLLBACK");
        if !matches!(time::timeout(limit, rollback).await, Ok(Ok(()))) {
            self.mark_broken();
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
            Ok(Err(_)) | Err(_) => self.mark_broken(),
        }
        false
    }

    /// Resolves when the connection is marked broken, or is silent for `limit`.
    pub async fn wait_until_broken(&self, limit: Duration) {
        let silent = async {
            loop {
                time::sleep(PING_INTERVAL).await;
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
    pub fn mark_broken(&self) {
        self.is_broken.store(true, Ordering::Release);
        self.broken.notify_one();
    }

    /// Whether statements may be sent. **Invariant:** none are behind those of a batch that was
    /// given up: they would join its transaction.
    pub fn is_usable(&self) -> bool {
        !self.is_broken.load(Ordering::Acquire) && !self.client.is_closed()
    }

    pub fn forget_warnings(&self) {
        self.warned.store(false, Ordering::Release);
    }

    pub fn was_warned(&self) -> bool {
        self.warned.load(Ordering::Acquire)
    }
}

/// Whether prepared statements outlive a transaction, for all connections of a store.
pub(super) struct Lasting(AtomicBool);

impl Lasting {
    pub fn new(lasting: bool) -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(lasting)))
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// They do not, as it turns out.
    fn end(&self, why: &str) {
        if self.0.swap(false, Ordering::AcqRel) {
            tracing::warn!(
                setting = "store_prepared_statements",
                "{why}: statements are not prepared from here on, as if the setting were false"
            );
        }
    }
}

async fn prepare(client: &Client, limit: Duration) -> Result<Vec<Statement>, Error> {
    let limit = limit.as_millis().max(1);
    let settings = format!(
        "{PLANNER_SETTINGS}; SET statement_timeout = {limit}; SET lock_timeout = {limit}; \
         SET default_transaction_isolation = 'read committed'"
    );
    client.batch_execute(&settings).await?;
    let prepare = |sql: &Sql| client.prepare_typed(sql.text(), sql.types());
    futures_util::future::try_join_all(Sql::ALL.iter().map(prepare)).await
}

/// Whether a prepared statement was not there, or another one was: a pooler has given
/// the connection to another server process.
fn is_lost_statement(error: &Error) -> bool {
    [SqlState::INVALID_SQL_STATEMENT_NAME, SqlState::DUPLICATE_PSTATEMENT]
        .iter()
        .any(|lost| error.code() == Some(lost))
}

/// Whether a statement failed before it did anything, and works when it is not a prepared
/// one: it was lost, or the tables have changed since.
pub(super) fn is_stale(error: &Error) -> bool {
    is_lost_statement(error) || error.code() == Some(&SqlState::FEATURE_NOT_SUPPORTED)
}

/// Whether an error says that this connection will not do: it is broken, or its
/// server goes or is a standby.
fn ends_connection(error: &Error) -> bool {
    error.code().is_none_or(|code| {
        *code == SqlState::READ_ONLY_SQL_TRANSACTION
            || ["57P0", "08"].iter().any(|class| code.code().starts_with(class))
    })
}
