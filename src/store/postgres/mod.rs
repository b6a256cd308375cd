//! Users in `PostgreSQL`: any number of replicas share them.
//!
//! One task writes ([`writer`]) on its own connection; reads share several others. One
//! task for each connection keeps it open ([`reconnecting`]). A call without a connection
//! fails immediately. All tasks run on the runtime that opens the store.
//!
//! **Invariant:** revisions come from one row, under its lock, so they are in commit order
//! for all replicas. It deliberately trusts no clock and no memory of another replica.

mod alone;
mod backup;
mod batch;
mod columns;
mod commands;
mod commit;
mod connect_error;
mod get_batcher;
mod in_doubt;
mod pooler;
mod preconditions;
mod readers;
mod reconnecting;
mod refusal;
mod rows;
mod schema;
mod session;
#[cfg(test)]
mod simulation;
mod sql;
mod tls;
mod write_rows;
mod writer;

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio::{runtime::Handle, sync::watch, task::JoinHandle, time};
use uuid::Uuid;

pub(super) use self::commands::{backup, migrate, purge, restore};
pub use self::connect_error::ConnectError;

use self::{
    commands::{CONNECT_TIMEOUT, block_on, connector, first_connection},
    get_batcher::GetBatcher,
    readers::Readers,
    reconnecting::{DISCONNECTED, ReconnectingSession},
    sql::Sql,
    writer::Writer,
};
use super::{
    OpenError,
    heartbeat::{TRY_INTERVAL, WriteHeartbeat},
    metrics::retries,
    queue::{Queue, queue},
    read_forecast::{ReadClass, ReadKind},
    writer_loop,
};
use crate::{
    config::{Config, PostgresUrl},
    domain::{
        Deadline, Entry, Error, LogHead, LogPosition, Page, PageSize, Revision, Store, StoreHealth, StoreId,
        Timestamp, User, UserId, UserKey, Write, WriteResult,
    },
};

/// How often watches poll for writes of other replicas. A notification by the database
/// would serialise commits, and does not pass a pooler.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A read that takes longer than this counts as one that fails.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct PostgresStore {
    readers: Arc<Readers>,
    get_batcher: GetBatcher,
    writer_session: Arc<ReconnectingSession>,
    /// The last revision that this replica wrote.
    newest: Arc<watch::Sender<Revision>>,
    queue: Arc<Queue>,
    writer: Mutex<Option<JoinHandle<()>>>,
    heartbeat: Arc<WriteHeartbeat>,
}

impl PostgresStore {
    /// Opens the store. Blocks, on a thread that belongs to a runtime.
    pub fn open(url: &PostgresUrl, config: &Config) -> Result<Self, OpenError> {
        migrate(url, config, &[])?;
        let connector = Arc::new(connector(url, config)?);
        block_on(first_connection(&connector, url, preconditions::login))?;
        let runtime = Handle::try_current().map_err(|error| OpenError::Thread(io::Error::other(error)))?;
        let _on_runtime = runtime.enter();
        let (queue, receiver) = queue(config.store_queue.max(1));
        let writer_session = Arc::new(ReconnectingSession::keep(Arc::clone(&connector), "write"));
        let newest = Arc::new(watch::Sender::new(0));
        let heartbeat = Arc::new(WriteHeartbeat::new());
        let now = time::Instant::now();
        let mut writer = Writer {
            session: Arc::clone(&writer_session),
            newest: Arc::clone(&newest),
            is_alone: false,
            retries: retries("write"),
            heartbeat: Arc::clone(&heartbeat),
            limit: connector.limit,
            change_log_retention: config.change_log_retention,
            change_log_rows: i64::try_from(config.change_log_rows).unwrap_or(i64::MAX),
            prune_at: now,
            try_at: now + TRY_INTERVAL,
        };
        // Half of the connections are opened by the threads that read.
        let own = config.store_connections / 2;
        let readers =
            Arc::new(Readers::new(&connector, config.store_connections - own, config.max_unary_calls));
        let store = Self {
            get_batcher: GetBatcher::new(Arc::clone(&readers), connector, own),
            readers,
            writer_session,
            newest,
            queue,
            writer: Mutex::new(Some(tokio::spawn(
                async move { writer_loop::run(&receiver, &mut writer).await },
            ))),
            heartbeat,
        };
        super::metrics::writable().set(1.0);
        runtime.block_on(store.connected());
        Ok(store)
    }

    /// Until connections are there, or take too long.
    async fn connected(&self) {
        let until = Instant::now() + CONNECT_TIMEOUT;
        while Instant::now() < until && self.probe().await != (StoreHealth { reads: true, writes: true }) {
            time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn get(&self, key: &UserKey, deadline: Deadline) -> Result<Option<Arc<User>>, Error> {
        self.get_batcher.get(key, deadline).await
    }

    async fn batch_get(&self, ids: &[UserId], deadline: Deadline) -> Result<Vec<Option<User>>, Error> {
        let asked: Vec<_> = ids.iter().map(|id| id.as_str().to_owned()).collect();
        let readers = Arc::clone(&self.readers);
        let read = async move { readers.ask(None, Sql::Users, &[&asked, &[""; 0].as_slice()]).await };
        let rows = self.readers.larger(ReadClass::new(ReadKind::Batch, ids.len()), deadline, read).await?;
        let users = rows::users(&rows)?.into_iter().map(|user| (user.id.clone(), user));
        let users: HashMap<UserId, User> = users.collect();
        Ok(ids.iter().map(|id| users.get(id).cloned()).collect())
    }

    async fn list(&self, after: Option<&UserId>, size: PageSize, deadline: Deadline) -> Result<Page, Error> {
        // No id is empty, so every id comes after the empty text. One row more than
        // asked for tells whether there is more.
        let after = after.map_or("", UserId::as_str).to_owned();
        let limit = i64::try_from(size.get() + 1).unwrap_or(i64::MAX);
        let readers = Arc::clone(&self.readers);
        let read = async move { readers.ask(None, Sql::Page, &[&after, &limit]).await };
        let rows = self.readers.larger(ReadClass::new(ReadKind::Page, size.get()), deadline, read).await?;
        let mut users = rows::users(&rows)?;
        let more = users.len() > size.get();
        users.truncate(size.get());
        Ok(Page { users, more })
    }

    async fn write(&self, write: Write, deadline: Deadline) -> Result<WriteResult, Error> {
        if self.writer_session.session().is_none() {
            return Err(DISCONNECTED);
        }
        self.queue.push(write, deadline)?.await.unwrap_or(Err(Error::OutcomeUnknown))
    }

    async fn log_head(&self, deadline: Deadline) -> Result<LogHead, Error> {
        let row = self.readers.rows(Sql::LogHead, &[], deadline).await?.swap_remove(0);
        let store = rows::get::<Uuid>(&row, 0)?.into_bytes();
        let time = rows::get::<Option<i64>>(&row, 2)?;
        let time = time.map_or(LogPosition::BEGINNING.time, Timestamp::from_micros);
        Ok(LogHead {
            store: StoreId(store),
            newest: LogPosition { revision: rows::revision(&row, 1)?, time },
        })
    }

    async fn changes(&self, after: Revision, limit: usize, deadline: Deadline) -> Result<Vec<Entry>, Error> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.readers.rows(Sql::Changes, &[&after.cast_signed(), &limit], deadline).await?;
        rows.iter().map(rows::entry).collect()
    }

    async fn changed(&self, after: Revision) {
        let mut newest = self.newest.subscribe();
        let _ = time::timeout(POLL_INTERVAL, newest.wait_for(|newest| *newest > after)).await;
    }

    async fn probe(&self) -> StoreHealth {
        let read = self.readers.rows(Sql::Revision, &[], Deadline::NONE);
        let reads = matches!(time::timeout(PROBE_TIMEOUT, read).await, Ok(Ok(_)));
        let task = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let alive = task.as_ref().is_some_and(|task| !task.is_finished());
        let writes = alive && self.writer_session.session().is_some() && self.heartbeat.is_recent();
        super::metrics::writable().set(if writes { 1.0 } else { 0.0 });
        StoreHealth { reads, writes }
    }

    async fn close(&self) {
        self.queue.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && writer.await.is_err()
        {
            tracing::error!("the store's writer panicked");
        }
        self.writer_session.close();
        self.readers.close();
        self.get_batcher.close();
    }
}
