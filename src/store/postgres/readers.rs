//! Connections that reads share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use metrics::Counter;
use tokio::{sync::Semaphore, time};
use tokio_postgres::Row;

use super::{
    commit::failed,
    reconnecting::{Connector, DISCONNECTED, ReconnectingSession},
    session::{Param, Session, is_stale},
    sql::Sql,
};
use crate::{
    domain::{Deadline, Error},
    store::{
        metrics::{ReadMetrics, retries},
        read_forecast::ReadClass,
        read_queue::ReadQueue,
    },
};

/// How many reads may be under way on one connection.
const MAX_READS_PER_CONNECTION: usize = 32;

/// How many of them are larger ones. The server runs the statements of a connection one after
/// the other, so the second is there when the first ends, and more would only wait there.
const MAX_LARGER_READS_PER_CONNECTION: usize = 2;

pub(super) struct Readers {
    sessions: Vec<ReconnectingSession>,
    next: AtomicUsize,
    room: Semaphore,
    limit: Duration,
    retries: Counter,
    /// Where larger reads wait.
    queue: Arc<ReadQueue>,
    pub metrics: Arc<ReadMetrics>,
}

impl Readers {
    pub fn new(connector: &Arc<Connector>, connections: usize, max_calls: usize) -> Self {
        let metrics = Arc::new(ReadMetrics::new());
        let larger = connections * MAX_LARGER_READS_PER_CONNECTION;
        Self {
            sessions: (0..connections)
                .map(|_| ReconnectingSession::keep(Arc::clone(connector), "read"))
                .collect(),
            next: AtomicUsize::new(0),
            room: Semaphore::new(connections * MAX_READS_PER_CONNECTION),
            limit: connector.limit,
            retries: retries("read"),
            queue: ReadQueue::new(larger, max_calls, Arc::clone(&metrics)),
            metrics,
        }
    }

    /// Runs one statement: one snapshot. Fails immediately without a connection.
    pub async fn rows(&self, sql: Sql, params: &[Param<'_>], deadline: Deadline) -> Result<Vec<Row>, Error> {
        let reading = async {
            let queued = self.metrics.queued();
            let _room = self.room.acquire().await.map_err(|_| DISCONNECTED)?;
            drop(queued);
            let _in_flight = self.metrics.in_flight();
            self.ask(None, sql, params).await
        };
        self.in_time(deadline, reading).await
    }

    /// Runs a larger read, in its turn. It goes on when its caller goes away, because the
    /// server does not stop it.
    pub async fn larger(
        self: &Arc<Self>,
        class: ReadClass,
        deadline: Deadline,
        read: impl Future<Output = Result<Vec<Row>, Error>> + Send + 'static,
    ) -> Result<Vec<Row>, Error> {
        if self.sessions.iter().all(|session| session.session().is_none()) {
            return Err(DISCONNECTED);
        }
        let reading = async {
            let turn = self.queue.turn(class, deadline).await?;
            let readers = Arc::clone(self);
            let read = async move { turn.end(readers.in_time(Deadline::NONE, read).await) };
            tokio::spawn(read).await.map_err(|error| Error::Internal(error.into()))?
        };
        self.in_time(deadline, reading).await
    }

    /// The same without a limit on how many are under way, and over this connection if it works.
    pub async fn ask(
        &self,
        own: Option<&ReconnectingSession>,
        sql: Sql,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, Error> {
        let own = own.and_then(ReconnectingSession::session);
        let session = own.or_else(|| self.session()).ok_or(DISCONNECTED)?;
        match session.rows(sql, params).await {
            // Cut in the middle, or not begun: reading again does no harm.
            Err(error) if error.is_closed() || is_stale(&error) => {
                self.retries.increment(1);
                // The connection itself is good where only its statements are not.
                let other = if is_stale(&error) { session } else { self.session().ok_or(DISCONNECTED)? };
                other.rows(sql, params).await.map_err(failed)
            }
            answer => answer.map_err(failed),
        }
    }

    /// Waits for a read no longer than its caller, and the limit, allow. A connection
    /// that is silent for so long is replaced by its keeper.
    pub async fn in_time<T>(
        &self,
        deadline: Deadline,
        reading: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let until = deadline.remaining().map_or(self.limit, |left| left.min(self.limit));
        match time::timeout(until, reading).await {
            Ok(read) => read,
            Err(_) if until < self.limit => Err(Error::DeadlineExceeded),
            Err(_) => Err(Error::Unavailable("the database did not answer in time")),
        }
    }

    pub fn close(&self) {
        self.room.close();
        self.sessions.iter().for_each(ReconnectingSession::close);
    }

    /// The next connection that works.
    fn session(&self) -> Option<Arc<Session>> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        (0..self.sessions.len()).find_map(|n| self.sessions[(first + n) % self.sessions.len()].session())
    }
}
