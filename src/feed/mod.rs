//! The change log, read once for all watches.
//!
//! One task reads it, and only while there are watches; it keeps the latest
//! entries in a buffer bounded in bytes ([`buffer`]), which serves every watch. A resumed
//! watch reads older entries from the store ([`watch`]) until it has caught up.
//!
//! **Invariant:** the buffer waits for no watch; a watch that falls behind it is ended.

mod buffer;
mod metrics;
#[cfg(test)]
mod simulation;
mod watch;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{self as system_time, Duration},
};

use tokio::{
    sync::{Notify, watch as news},
    time::{self, Instant},
};

pub use self::watch::{Item, Watch, WatchError};
use self::{
    buffer::{ChangeBuffer, Fetch, Next},
    metrics::FeedMetrics,
};
use crate::domain::{Deadline, Entry, Error, Revision, Store};

/// Entries in one read of the log.
const READ_BATCH_ENTRIES: usize = 256;

/// How long the log may be out of reach before watches end. Their callers then
/// look for a replica that has its store.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// When a read that failed is made again.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// How often the metrics are brought up to date while nothing happens.
const METRICS_INTERVAL: Duration = Duration::from_secs(1);

/// The feed of one store. Clones share it.
#[derive(Clone)]
pub struct Feed(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    buffer: Mutex<ChangeBuffer>,
    /// Changes whenever the buffer does.
    news: news::Sender<()>,
    joined: Notify,
    metrics: FeedMetrics,
}

impl Feed {
    /// A feed of this store, whose buffer is limited to `buffer_bytes`. Nothing is
    /// read before [`Self::read`] runs.
    pub fn new(store: Arc<dyn Store>, buffer_bytes: usize) -> Self {
        Self(Arc::new(Inner {
            store,
            buffer: Mutex::new(ChangeBuffer::new(buffer_bytes)),
            news: news::Sender::new(()),
            joined: Notify::new(),
            metrics: FeedMetrics::new(buffer_bytes),
        }))
    }

    /// Reads the log while there are watches; never ends.
    pub async fn read(self) {
        let mut failing_since = None;
        loop {
            let next = self.buffer().next();
            let is_due = match next {
                Next::Rest => {
                    self.0.joined.notified().await;
                    false
                }
                Next::Begin => true,
                Next::Follow(after) => {
                    time::timeout(METRICS_INTERVAL, self.0.store.changed(after)).await.is_ok()
                }
            };
            let began = Instant::now();
            let done = match next {
                Next::Begin => self.begin().await,
                Next::Follow(after) if is_due => self.follow(after).await,
                Next::Rest | Next::Follow(_) => Ok(()),
            };
            if next != Next::Rest {
                self.buffer().measure(&self.0.metrics);
            }
            match done {
                Ok(()) => failing_since = None,
                Err(_) if failing_since.get_or_insert(began).elapsed() < READ_TIMEOUT => {
                    time::sleep(RETRY_INTERVAL).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "the change log cannot be read: watches end");
                    self.close_subscriptions();
                    failing_since = None;
                }
            }
        }
    }

    async fn begin(&self) -> Result<(), Error> {
        let newest = in_time(|deadline| self.0.store.log_head(deadline)).await?.newest.revision;
        self.buffer().begin(newest);
        // What was written before is told from the store.
        self.0.news.send_replace(());
        Ok(())
    }

    async fn follow(&self, after: Revision) -> Result<(), Error> {
        let entries = in_time(|deadline| self.0.store.changes(after, READ_BATCH_ENTRIES, deadline)).await?;
        if entries.is_empty() {
            return Ok(());
        }
        if !follows(&entries, after) {
            tracing::warn!("the change log is not the one that it was: watches end");
            self.close_subscriptions();
            return Ok(());
        }
        self.0.metrics.read(&entries);
        self.buffer().push(after, entries);
        self.0.news.send_replace(());
        Ok(())
    }

    /// Ends every watch there is.
    fn close_subscriptions(&self) {
        self.buffer().close_subscriptions();
        self.0.news.send_replace(());
    }

    fn buffer(&self) -> MutexGuard<'_, ChangeBuffer> {
        self.0.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self) -> Subscription {
        let (number, epoch) = self.buffer().join();
        self.0.joined.notify_one();
        self.0.metrics.watches.increment(1.0);
        Subscription { feed: self.clone(), number, epoch, news: self.0.news.subscribe() }
    }
}

/// A read of the store, given up where the store itself does not end it.
async fn in_time<T, F: Future<Output = Result<T, Error>>>(
    read: impl FnOnce(Deadline) -> F,
) -> Result<T, Error> {
    let deadline = Deadline::at(system_time::Instant::now() + READ_TIMEOUT);
    time::timeout(READ_TIMEOUT, read(deadline)).await.unwrap_or(Err(Error::DeadlineExceeded))
}

/// Whether entries are those that come next, none of them cleared away.
fn follows(entries: &[Entry], after: Revision) -> bool {
    entries.first().is_some_and(|first| first.position.revision == after + 1)
}

/// A watch's registration, until it is dropped.
struct Subscription {
    feed: Feed,
    number: usize,
    /// Which of the buffer's lives this watch belongs to.
    epoch: u64,
    news: news::Receiver<()>,
}

impl Subscription {
    /// What the buffer has after a revision, as soon as there is anything to say.
    async fn fetch(&mut self, after: Revision) -> Fetch {
        loop {
            self.news.borrow_and_update();
            let fetched = self.feed.buffer().fetch(self.number, self.epoch, after);
            if !matches!(fetched, Fetch::Nothing) {
                return fetched;
            }
            // The sender lives as long as the feed.
            let _ = self.news.changed().await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.feed.buffer().leave(self.number);
        self.feed.0.metrics.watches.decrement(1.0);
    }
}
