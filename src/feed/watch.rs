//! One watch: the initial state, the changes since its beginning, and then the feed.

use std::{collections::VecDeque, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::time;

use super::{Feed, Subscription, buffer::Fetch, follows, metrics::terminated};
use crate::domain::{
    Deadline, Entry, Error, LogPosition, Page, PageSize, Progress, ResumeToken, Revision, Store, StoreId,
    User, UserId,
};

/// Users, or entries, in one read: few enough for many concurrent watches, and for a
/// read that delays no other.
const SCAN_PAGE_SIZE: PageSize = PageSize::at_most(100);

/// What a watch says next.
#[derive(Clone, Debug)]
pub enum Item {
    /// A user that was there when the watch began.
    Existing(User),
    Change(Arc<Entry>),
    /// Everything up to here was told: what was told is the state of the store at
    /// one moment.
    CaughtUp,
}

/// Why a watch ends by itself. All but an expired one can be resumed.
#[derive(Debug)]
pub enum WatchError {
    TooSlow,
    Failed(Error),
}

impl From<Error> for WatchError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// A watch. Bounded in memory, however slowly it is asked.
pub struct Watch {
    subscription: Subscription,
    store: StoreId,
    stage: Stage,
    /// How far what was said goes.
    progress: Progress,
    /// The newest position that a page of users may be of.
    seen: LogPosition,
    /// What was read and not said yet.
    ready: VecDeque<Item>,
    /// A read of the store that has begun. It outlives a [`Self::next`] that is given up, which
    /// happens with each heartbeat.
    reading: Option<BoxFuture<'static, Result<ReadResult, Error>>>,
}

/// What a watch has read from the store.
enum ReadResult {
    /// A page of users, and the newest position that it may be of.
    Users(Page, LogPosition),
    /// Entries behind the last one that was said.
    Entries(Vec<Entry>),
}

/// Where the next items come from.
enum Stage {
    /// Users behind this one, as they were when the watch began.
    Scan { began: LogPosition, cursor: Option<UserId> },
    /// The log in the store, at least up to this revision.
    CatchUp { until: Revision },
    /// The buffer.
    Live,
}

impl Watch {
    /// Begins a watch, or goes on with the one that the token came from.
    pub async fn begin(
        feed: &Feed,
        initial_state: bool,
        token: Option<ResumeToken>,
        deadline: Deadline,
    ) -> Result<Self, Error> {
        let subscription = feed.join();
        let store = &*feed.0.store;
        let head = store.log_head(deadline).await?;
        let (progress, seen) = match token {
            Some(ResumeToken { store, .. }) if store != head.store => {
                return Err(Error::ResumeTokenExpired);
            }
            Some(token) => (token.at, token.seen),
            None if initial_state => (Progress::Scan { began: head.newest, last: None }, head.newest),
            None => (Progress::Changes { after: head.newest }, head.newest),
        };
        let stage = match &progress {
            Progress::Scan { began, last } => Stage::Scan { began: *began, cursor: last.clone() },
            Progress::Changes { .. } => Stage::CatchUp { until: head.newest.revision },
        };
        let after = progress.log_position();
        if after != head.newest && !is_in_log(store, after, deadline).await? {
            return Err(Error::ResumeTokenExpired);
        }
        // The history may be another one since then.
        if seen != after && seen != head.newest && !is_in_log(store, seen, deadline).await? {
            return Err(Error::ResumeTokenExpired);
        }
        let store = head.store;
        Ok(Self { subscription, store, stage, progress, seen, ready: VecDeque::new(), reading: None })
    }

    /// The next item. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Item, WatchError> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                match &item {
                    Item::Existing(user) => self.scanned_to(Some(user.id.clone())),
                    Item::Change(entry) => self.progress = Progress::Changes { after: entry.position },
                    // Where nothing was changed during the scan, no change has ended it.
                    Item::CaughtUp => {
                        self.progress = Progress::Changes { after: self.progress.log_position() }
                    }
                }
                return Ok(item);
            }
            self.fetch().await.inspect_err(|end| {
                terminated(match end {
                    WatchError::TooSlow => "too_slow",
                    WatchError::Failed(Error::ResumeTokenExpired) => "expired",
                    WatchError::Failed(_) => "store",
                })
                .increment(1);
            })?;
        }
    }

    /// Where to go on behind what was said.
    pub fn token(&self) -> ResumeToken {
        let after = self.progress.log_position();
        let seen = if self.seen.revision > after.revision { self.seen } else { after };
        ResumeToken { store: self.store, at: self.progress.clone(), seen }
    }

    /// Reads on, once nothing is ready.
    async fn fetch(&mut self) -> Result<(), WatchError> {
        let after = self.progress.log_position().revision;
        if self.reading.is_none() {
            let store = Arc::clone(&self.subscription.feed.0.store);
            self.reading = Some(match &self.stage {
                Stage::Scan { cursor, .. } => read_page(store, cursor.clone()).boxed(),
                Stage::CatchUp { until } if after >= *until => {
                    self.ready.push_back(Item::CaughtUp);
                    self.stage = Stage::Live;
                    return Ok(());
                }
                Stage::CatchUp { .. } => read_log(store, after).boxed(),
                Stage::Live => match self.subscription.fetch(after).await {
                    Fetch::Entries(entries) => {
                        self.ready.extend(entries.into_iter().map(Item::Change));
                        return Ok(());
                    }
                    Fetch::TooOld => read_log(store, after).boxed(),
                    Fetch::TooSlow => return Err(WatchError::TooSlow),
                    Fetch::Closed => return Err(Error::Unavailable("the change log cannot be read").into()),
                    Fetch::Nothing => return Ok(()),
                },
            });
        }
        let Some(reading) = &mut self.reading else { return Ok(()) };
        let read = reading.await;
        self.reading = None;
        match read? {
            ReadResult::Users(page, seen) => self.take_page(page, seen),
            ReadResult::Entries(entries) if follows(&entries, after) => {
                self.ready.extend(entries.into_iter().map(|entry| Item::Change(Arc::new(entry))));
            }
            ReadResult::Entries(_) => return Err(Error::ResumeTokenExpired.into()),
        }
        Ok(())
    }

    /// Takes a page of users. Who was written since the watch began is left out,
    /// and comes with the changes.
    fn take_page(&mut self, page: Page, seen: LogPosition) {
        self.seen = seen;
        let Stage::Scan { began, cursor } = &mut self.stage else { return };
        let began = *began;
        let last = page.users.last().map(|user| user.id.clone()).or(cursor.take());
        let old = page.users.into_iter().filter(|user| user.revision <= began.revision);
        self.ready.extend(old.map(Item::Existing));
        if self.ready.is_empty() {
            self.scanned_to(last.clone());
        }
        self.stage = if page.more {
            Stage::Scan { began, cursor: last }
        } else {
            // No page is newer, so the users and the changes up to here are the state of then.
            Stage::CatchUp { until: seen.revision }
        };
    }

    fn scanned_to(&mut self, id: Option<UserId>) {
        if let Progress::Scan { last, .. } = &mut self.progress {
            *last = id;
        }
    }
}

/// Whether this history has such a point, and the log what follows it.
async fn is_in_log(store: &dyn Store, log_position: LogPosition, deadline: Deadline) -> Result<bool, Error> {
    let before = log_position.revision.saturating_sub(1);
    let entries = store.changes(before, 1, deadline).await?;
    let is_first = log_position == LogPosition::BEGINNING && follows(&entries, 0);
    Ok(is_first || entries.first().is_some_and(|entry| entry.position == log_position))
}

/// Reads the next page of users. Where the store has too many reads, a watch can wait, which
/// has no deadline.
async fn read_page(store: Arc<dyn Store>, cursor: Option<UserId>) -> Result<ReadResult, Error> {
    let page = loop {
        match store.list(cursor.as_ref(), SCAN_PAGE_SIZE, Deadline::NONE).await {
            Err(Error::Overloaded { retry_delay }) => time::sleep(retry_delay).await,
            page => break page?,
        }
    };
    Ok(ReadResult::Users(page, store.log_head(Deadline::NONE).await?.newest))
}

/// Reads entries that the store has for sure, unless they were cleared away.
async fn read_log(store: Arc<dyn Store>, after: Revision) -> Result<ReadResult, Error> {
    Ok(ReadResult::Entries(store.changes(after, SCAN_PAGE_SIZE.get(), Deadline::NONE).await?))
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
        time::Duration,
    };

    use async_trait::async_trait;

    use super::*;
    use crate::{
        domain::{Fields, LogHead, StoreHealth, Timestamp, UserKey, Write, WriteResult},
        feed::Feed,
    };

    const READ_TIME: Duration = Duration::from_secs(10);

    /// A store of one user that takes long to list it.
    #[derive(Default)]
    struct SlowStore {
        listed: AtomicUsize,
    }

    #[async_trait]
    impl Store for SlowStore {
        async fn get(&self, _: &UserKey, _: Deadline) -> Result<Option<Arc<User>>, Error> {
            unreachable!("a watch reads no single user")
        }

        async fn batch_get(&self, _: &[UserId], _: Deadline) -> Result<Vec<Option<User>>, Error> {
            unreachable!("a watch reads no single user")
        }

        async fn list(&self, _: Option<&UserId>, _: PageSize, _: Deadline) -> Result<Page, Error> {
            self.listed.fetch_add(1, Relaxed);
            time::sleep(READ_TIME).await;
            let time = Timestamp::from_micros(0);
            let user = User {
                id: UserId::parse("a").unwrap(),
                fields: Fields::example("ada@example.com"),
                revision: 0,
                create_time: time,
                update_time: time,
            };
            Ok(Page { users: vec![user], more: false })
        }

        async fn write(&self, _: Write, _: Deadline) -> Result<WriteResult, Error> {
            unreachable!("a watch writes nothing")
        }

        async fn log_head(&self, _: Deadline) -> Result<LogHead, Error> {
            Ok(LogHead { store: StoreId([7; 16]), newest: LogPosition::BEGINNING })
        }

        async fn changes(&self, _: Revision, _: usize, _: Deadline) -> Result<Vec<Entry>, Error> {
            unreachable!("there are none")
        }

        async fn changed(&self, _: Revision) {
            std::future::pending::<()>().await;
        }

        async fn probe(&self) -> StoreHealth {
            unreachable!("a watch does not probe")
        }

        async fn close(&self) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_goes_on_while_its_watch_tells_something_else() {
        let store = Arc::new(SlowStore::default());
        let feed = Feed::new(Arc::clone(&store) as Arc<dyn Store>, 0);
        let mut watch = Watch::begin(&feed, true, None, Deadline::NONE).await.unwrap();
        let mut heartbeats = 0;
        let item = loop {
            match time::timeout(READ_TIME / 4, watch.next()).await {
                Ok(item) => break item.unwrap(),
                Err(_) => heartbeats += 1,
            }
            assert!(heartbeats < 10, "the read has begun {} times", store.listed.load(Relaxed));
        };
        assert!(matches!(item, Item::Existing(user) if user.id.as_str() == "a"));
        assert_eq!((heartbeats >= 3, store.listed.load(Relaxed)), (true, 1));
    }
}
