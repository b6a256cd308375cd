//! Users in one `SQLite` file: durable, and nothing to install.
//!
//! One thread writes ([`writer`]); reads run concurrently on their own
//! connections. A read sees every write that was answered before it began.
//!
//! **Invariant:** one process has the file (`file.rs`), and while it serves only the writer
//! writes to it. After a sync that failed, no write is acknowledged any more.

mod backup;
mod cache;
mod change_log;
mod columns;
mod commit_epoch;
mod concurrent_checkpoint;
mod connections;
mod file;
mod maintenance;
#[cfg(test)]
mod panics;
mod readers;
mod rows;
mod schema;
mod transaction;
mod write_state;
mod writer;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use async_trait::async_trait;
use metrics::Gauge;
use rusqlite::Connection;
use tokio::{
    runtime::Builder,
    sync::{Semaphore, watch},
    task,
};

pub(super) use self::backup::{
    backup, check as check_backup, create as create_backup, files, open_up_to_date as open_backup_up_to_date,
    restore, restore_files,
};
use self::{
    cache::Cache, commit_epoch::CommitEpoch, concurrent_checkpoint::ConcurrentCheckpoint,
    maintenance::Maintenance, readers::Readers, write_state::SharedWriteState, writer::Writer,
};
use super::{
    CLOSED, OpenError,
    metrics::{ReadMetrics, writable},
    queue::{Queue, WriteReceiver, queue},
    read_forecast::{ReadClass, ReadKind},
    read_queue::ReadQueue,
};
use crate::{
    config::Config,
    domain::{
        Deadline, Entry, Error, LogHead, Page, PageSize, Revision, Store, StoreHealth, User, UserId, UserKey,
        Write, WriteResult,
    },
};

/// Up to this many users a page is read where it is asked for; to hand such a
/// read to another thread takes longer than the read.
const SMALL_PAGE_ROWS: usize = 50;

/// How many larger reads run concurrently, so that they never take all threads.
const MAX_BLOCKING_READS: usize = 8;

/// How many reads of the change log run concurrently.
const MAX_CHANGE_LOG_READS: usize = 2;

/// A read that takes longer than this counts as one that fails.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct SqliteStore {
    inner: Arc<Inner>,
}

struct Inner {
    readers: Arc<Readers>,
    /// Where larger reads wait.
    read_queue: Arc<ReadQueue>,
    /// Where reads of the change log wait: watches depend on each, so none is refused.
    change_log_reads: Arc<Semaphore>,
    write_state: Arc<SharedWriteState>,
    cache: Arc<Cache>,
    /// The last revision that is durable.
    newest: Arc<watch::Sender<Revision>>,
    queue: Arc<Queue>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// A read that tells whether reads are possible, until it ends.
    probe: tokio::sync::Mutex<Option<task::JoinHandle<bool>>>,
    writable: Gauge,
}

pub(super) fn migrate(path: &Path) -> Result<(), OpenError> {
    let path = file::absolute(path)?;
    let _lock = file::lock(&path)?;
    connections::open_writer(&path).map(drop)
}

/// Erases deleted users from the change log, and so from the file; how many changes.
pub(super) fn purge(path: &Path) -> Result<u64, OpenError> {
    let path = file::absolute(path)?;
    if path.metadata().map_or(true, |file| file.len() == 0) {
        return Err(OpenError::NoStore(path));
    }
    let _lock = file::lock(&path)?;
    let connection = connections::open_writer(&path)?;
    match schema::purge(&connection) {
        Ok((_, log)) if log.is_busy => Err(OpenError::NotErased(path)),
        Ok((erased, _)) => Ok(erased),
        Err(source) => Err(OpenError::sqlite(&path, source)),
    }
}

impl SqliteStore {
    pub fn open(path: &Path, config: &Config) -> Result<Self, OpenError> {
        let (mut inner, writer, receiver) = Self::prepare(path, config)?;
        let runtime = Builder::new_current_thread().enable_time().build().map_err(OpenError::Thread)?;
        let writer = thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || runtime.block_on(writer.run(&receiver)))
            .map_err(OpenError::Thread)?;
        inner.writer = Mutex::new(Some(writer));
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The store without its thread, and what the thread runs.
    fn prepare(path: &Path, config: &Config) -> Result<(Inner, Writer, WriteReceiver), OpenError> {
        let path = file::absolute(path)?;
        let lock = file::lock(&path)?;
        let connection = connections::open_writer(&path)?;
        let writable = writable();
        writable.set(1.0);
        let (queue, receiver) = queue(config.store_queue.max(1));
        let write_state = Arc::new(SharedWriteState::new());
        let commit_epoch = Arc::<CommitEpoch>::default();
        let cache = Arc::new(Cache::new(config.store_cache_bytes, Arc::clone(&commit_epoch)));
        let readers = Arc::new(Readers::new(path.clone(), commit_epoch));
        let failed = |source| OpenError::sqlite(&path, source);
        let concurrent = ConcurrentCheckpoint::new(connections::open_checkpointer(&path).map_err(failed)?);
        let newest = rows::current_revision(&connection).map_err(failed)?;
        let newest = Arc::new(watch::Sender::new(newest));
        let writer = Writer {
            connection,
            write_state: write_state.clone(),
            cache: cache.clone(),
            newest: newest.clone(),
            maintenance: Maintenance::new(config, Arc::clone(&readers), concurrent),
            files: file::OpenFiles::of(&path),
            lock,
        };
        let thread = Mutex::default();
        let reads = Arc::new(ReadMetrics::new());
        let inner = Inner {
            readers,
            read_queue: ReadQueue::new(MAX_BLOCKING_READS, config.max_unary_calls, reads),
            change_log_reads: Arc::new(Semaphore::new(MAX_CHANGE_LOG_READS)),
            write_state,
            cache,
            newest,
            queue,
            writer: thread,
            probe: tokio::sync::Mutex::default(),
            writable,
        };
        Ok((inner, writer, receiver))
    }

    /// Runs a larger read, in its turn.
    async fn larger_read<T: Send + 'static>(
        &self,
        class: ReadClass,
        deadline: Deadline,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let turn = self.inner.read_queue.turn(class, deadline).await?;
        self.blocking_read(move |readers| turn.end(readers.with(read))).await
    }

    /// Runs a read that may take a while on a thread that may be blocked. It goes on when its
    /// caller goes away, with what it holds.
    async fn blocking_read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Readers) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = self.inner.clone();
        let read = task::spawn_blocking(move || read(&inner.readers));
        read.await.map_err(|error| Error::Internal(error.into()))?
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn get_cached(&self, id: &UserId) -> Option<Arc<User>> {
        self.inner.cache.get_cached(id)
    }

    async fn get(&self, key: &UserKey, _: Deadline) -> Result<Option<Arc<User>>, Error> {
        let Inner { readers, cache, .. } = &*self.inner;
        // Microseconds, as a rule: not worth a change of thread.
        let read = || {
            readers.with(|connection| match key {
                UserKey::Id(id) => rows::by_id(connection, id),
                UserKey::Email(email) => rows::by_email(connection, email),
            })
        };
        match key {
            UserKey::Id(id) => cache.get(id, read),
            UserKey::Email(_) => Ok(read()?.map(Arc::new)),
        }
    }

    async fn batch_get(&self, ids: &[UserId], deadline: Deadline) -> Result<Vec<Option<User>>, Error> {
        let ids = ids.to_vec();
        let class = ReadClass::new(ReadKind::Batch, ids.len());
        self.larger_read(class, deadline, move |connection| {
            ids.iter().map(|id| rows::by_id(connection, id)).collect()
        })
        .await
    }

    async fn list(&self, after: Option<&UserId>, size: PageSize, deadline: Deadline) -> Result<Page, Error> {
        let after = after.cloned();
        let size = size.get();
        let read = move |connection: &Connection| rows::page(connection, after.as_ref(), size);
        if size <= SMALL_PAGE_ROWS {
            self.inner.readers.with(read)
        } else {
            self.larger_read(ReadClass::new(ReadKind::Page, size), deadline, read).await
        }
    }

    async fn write(&self, write: Write, deadline: Deadline) -> Result<WriteResult, Error> {
        if let Some(refusal) = self.inner.write_state.refusal() {
            return Err(refusal);
        }
        self.inner.queue.push(write, deadline)?.await.unwrap_or(Err(Error::OutcomeUnknown))
    }

    async fn log_head(&self, _: Deadline) -> Result<LogHead, Error> {
        self.inner.readers.with(change_log::log_head)
    }

    async fn changes(&self, after: Revision, limit: usize, deadline: Deadline) -> Result<Vec<Entry>, Error> {
        let permits = Arc::clone(&self.inner.change_log_reads);
        let permit = permits.acquire_owned().await.map_err(|_| CLOSED)?;
        // The permit may have taken long.
        if deadline.is_over() {
            return Err(Error::DeadlineExceeded);
        }
        self.blocking_read(move |readers| {
            let _permit = permit;
            readers.with(|connection| change_log::entries(connection, after, limit))
        })
        .await
    }

    async fn changed(&self, after: Revision) {
        // The sender lives as long as the store.
        let _ = self.inner.newest.subscribe().wait_for(|newest| *newest > after).await;
    }

    async fn probe(&self) -> StoreHealth {
        // One that hangs is waited for again: another one would hang on another thread.
        let mut probe = self.inner.probe.lock().await;
        let reading = probe.get_or_insert_with(|| {
            let inner = Arc::clone(&self.inner);
            task::spawn_blocking(move || inner.readers.with(rows::current_revision).is_ok())
        });
        let reads = tokio::time::timeout(PROBE_TIMEOUT, reading).await;
        if reads.is_ok() {
            *probe = None;
        }
        let writes = self.inner.takes_writes();
        self.inner.writable.set(f64::from(u8::from(writes)));
        StoreHealth { reads: matches!(reads, Ok(Ok(true))), writes }
    }

    async fn close(&self) {
        let inner = self.inner.clone();
        if task::spawn_blocking(move || inner.close()).await.is_err() {
            tracing::error!("the store did not close cleanly; the next start recovers it");
        }
    }
}

impl Inner {
    fn takes_writes(&self) -> bool {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let alive = writer.as_ref().is_some_and(|writer| !writer.is_finished());
        alive && self.write_state.takes_writes()
    }

    /// Lets the writer finish what it has, and waits for it.
    fn close(&self) {
        self.readers.close();
        self.queue.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the store's writer panicked; the next start recovers the file");
        }
        self.cache.close();
    }
}

/// A store that was not closed is closed when its last handle is dropped, so that
/// its file can be opened again.
impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn probes_wait_for_one_that_hangs_and_begin_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("users.db"), &Config::default()).unwrap();
        let handles = || Arc::strong_count(&store.inner);
        let runtime = Builder::new_current_thread().enable_time().max_blocking_threads(1).build().unwrap();
        let (end, ended) = mpsc::channel::<()>();
        runtime.block_on(async {
            let hanging = task::spawn_blocking(move || ended.recv());
            assert!(!store.probe().await.reads);
            let one = handles();
            assert!(!store.probe().await.reads);
            assert_eq!(handles(), one);
            drop(end);
            assert!(hanging.await.unwrap().is_err());
            assert!(store.probe().await.reads);
        });
    }
}
