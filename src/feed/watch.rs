//! One watch: the initial state, the changes since its beginning, and then the feed.

use std::{collections::VecDeque, sync::Arc};

use tokio::time;

use super::{Feed, Subscription, buffer::Fetch, follows, metrics::terminated};
use crate::domain::{
    Deadline, Entry, Error, LogPosition, Page, PageSize, Progress, ResumeToken, Revision, StoreId, User,
    UserId,
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
}

/// Where the next items come from.
enum Stage {
    /// Users behind this one, as they were when the watch began.
    Scan { began: LogPosition, cursor: Option<UserId> },
    /// The log in the store, at least up to this revision.
    CatchUp { until: Revision },
    /// The ring.
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
        let head = feed.0.store.log_head(deadline).await?;
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
        let watch = Self { subscription, store: head.store, stage, progress, seen, ready: VecDeque::new() };
        let after = watch.log_position();
        if after != head.newest && !watch.is_in_log(after, deadline).await? {
            return Err(Error::ResumeTokenExpired);
        }
        // The history may be another one since then.
        if seen != after && seen != head.newest && !watch.is_in_log(seen, deadline).await? {
            return Err(Error::ResumeTokenExpired);
        }
        Ok(watch)
    }

    /// The next item. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Item, WatchError> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                match &item {
                    Item::Existing(user) => self.scanned_to(Some(user.id.clone())),
                    Item::Change(entry) => self.progress = Progress::Changes { after: entry.position },
                    // Where nothing was changed during the scan, no change has ended it.
                    Item::CaughtUp => self.progress = Progress::Changes { after: self.log_position() },
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
        let after = self.log_position();
        let seen = if self.seen.revision > after.revision { self.seen } else { after };
        ResumeToken { store: self.store, at: self.progress.clone(), seen }
    }

    /// Reads on, once nothing is ready.
    async fn fetch(&mut self) -> Result<(), WatchError> {
        let after = self.log_position().revision;
        match &self.stage {
            Stage::Scan { began, cursor } => {
                let (began, cursor) = (*began, cursor.clone());
                self.scan(began, cursor).await?;
            }
            Stage::CatchUp { until } if after >= *until => {
                self.ready.push_back(Item::CaughtUp);
                self.stage = Stage::Live;
            }
            Stage::CatchUp { .. } => self.read_log(after).await?,
            Stage::Live => match self.subscription.fetch(after).await {
                Fetch::Entries(entries) => self.ready.extend(entries.into_iter().map(Item::Change)),
                Fetch::TooOld => self.read_log(after).await?,
                Fetch::TooSlow => return Err(WatchError::TooSlow),
                Fetch::Closed => return Err(Error::Unavailable("the change log cannot be read").into()),
                Fetch::Nothing => {}
            },
        }
        Ok(())
    }

    /// The next page of users. Where the store has too many reads, a watch can wait, which has
    /// no deadline.
    async fn page(&self, cursor: Option<&UserId>) -> Result<Page, Error> {
        loop {
            let page = self.subscription.feed.0.store.list(cursor, SCAN_PAGE_SIZE, Deadline::NONE).await;
            match page {
                Err(Error::Overloaded { retry_delay }) => time::sleep(retry_delay).await,
                page => return page,
            }
        }
    }

    /// Reads a page of users. Who was written since the watch began is left out,
    /// and comes with the changes.
    async fn scan(&mut self, began: LogPosition, cursor: Option<UserId>) -> Result<(), Error> {
        let page = self.page(cursor.as_ref()).await?;
        self.seen = self.subscription.feed.0.store.log_head(Deadline::NONE).await?.newest;
        let last = page.users.last().map(|user| user.id.clone()).or(cursor);
        let old = page.users.into_iter().filter(|user| user.revision <= began.revision);
        self.ready.extend(old.map(Item::Existing));
        if self.ready.is_empty() {
            self.scanned_to(last.clone());
        }
        self.stage = if page.more {
            Stage::Scan { began, cursor: last }
        } else {
            // No page is newer, so the users and the changes up to here are the state of then.
            Stage::CatchUp { until: self.seen.revision }
        };
        Ok(())
    }

    fn scanned_to(&mut self, id: Option<UserId>) {
        if let Progress::Scan { last, .. } = &mut self.progress {
            *last = id;
        }
    }

    /// Reads entries that the store has for sure, unless they were cleared away.
    async fn read_log(&mut self, after: Revision) -> Result<(), Error> {
        let entries =
            self.subscription.feed.0.store.changes(after, SCAN_PAGE_SIZE.get(), Deadline::NONE).await?;
        if !follows(&entries, after) {
            return Err(Error::ResumeTokenExpired);
        }
        self.ready.extend(entries.into_iter().map(|entry| Item::Change(Arc::new(entry))));
        Ok(())
    }

    /// The point that changes are still to be told from.
    fn log_position(&self) -> LogPosition {
        match self.progress {
            Progress::Scan { began, .. } => began,
            Progress::Changes { after } => after,
        }
    }

    /// Whether this history has such a point, and the log what follows it.
    async fn is_in_log(&self, log_position: LogPosition, deadline: Deadline) -> Result<bool, Error> {
        let before = log_position.revision.saturating_sub(1);
        let entries = self.subscription.feed.0.store.changes(before, 1, deadline).await?;
        let is_first = log_position == LogPosition::BEGINNING && follows(&entries, 0);
        Ok(is_first || entries.first().is_some_and(|entry| entry.position == log_position))
    }
}
