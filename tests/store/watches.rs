//! What those who watch a store are told: every change once and in order, however
//! often and wherever they go on.

use std::{
    collections::BTreeMap,
    future, slice,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::join_all;

use crate::{
    fixtures::{create, delete, fields, id, memory, stored, write},
    forward::{Forward, Hooks},
    support::TEST_TIMEOUT,
};
use tokio::task::{JoinHandle, JoinSet};
use user_service::{
    domain::{
        Age, Change, Deadline, Entry, Error, Event, LogPosition, Page, PageSize, Patch, Progress,
        ResumeToken, Revision, Store, StoreId, Timestamp, User, UserId,
    },
    feed::{Feed, Item, Watch, WatchError},
};

/// Much more than a test's changes weigh.
pub const ROOMY: usize = 64 << 20;

/// A feed that is read for as long as this lives.
pub struct Running {
    pub feed: Feed,
    reading: JoinHandle<()>,
}

impl Running {
    pub fn start(store: &Arc<dyn Store>, buffer_bytes: usize) -> Self {
        let feed = Feed::new(store.clone(), buffer_bytes);
        Self { reading: tokio::spawn(feed.clone().read()), feed }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

pub async fn begin(feed: &Feed, token: Option<ResumeToken>) -> Result<Watch, Error> {
    // As a caller has it.
    let token = token.map(|token| ResumeToken::parse(&token.encode()).unwrap());
    Watch::begin(feed, true, token, Deadline::NONE).await
}

pub async fn next(watch: &mut Watch) -> Result<Item, WatchError> {
    tokio::time::timeout(TEST_TIMEOUT, watch.next()).await.expect("a watch goes on")
}

/// What a caller makes of what it is told, checking all that it may expect.
#[derive(Default)]
pub struct Folded {
    pub users: BTreeMap<UserId, User>,
    scanned: Option<UserId>,
    /// The last revision that was told of.
    pub revision: Option<u64>,
    pub caught_up: usize,
    /// What was told in all.
    items: usize,
}

impl Folded {
    pub fn take(&mut self, item: Item) {
        self.items += 1;
        match item {
            Item::Existing(user) => {
                assert!(self.revision.is_none(), "the initial state comes first");
                assert!(self.scanned.as_ref() < Some(&user.id), "{:?} is not in order", user.id);
                self.scanned = Some(user.id.clone());
                self.users.insert(user.id.clone(), user);
            }
            Item::Change(entry) => self.happened(&entry),
            Item::CaughtUp => self.caught_up += 1,
        }
    }

    fn happened(&mut self, entry: &Entry) {
        let revision = entry.position.revision;
        assert!(
            self.revision.is_none_or(|last| revision == last + 1),
            "{revision} after {:?}",
            self.revision
        );
        self.revision = Some(revision);
        match &entry.event {
            Event::Created(user) => {
                assert!(self.users.insert(user.id.clone(), user.clone()).is_none(), "it was created anew");
            }
            // One that was changed before the initial state came to it is not known yet.
            Event::Updated(user) => drop(self.users.insert(user.id.clone(), user.clone())),
            Event::Deleted(id) => drop(self.users.remove(id)),
        }
    }

    /// Goes on until this revision was told of.
    pub async fn follow(&mut self, watch: &mut Watch, revision: u64) {
        while self.revision.is_none_or(|last| last < revision) {
            self.take(next(watch).await.unwrap());
        }
    }
}

/// Everything that the store has.
pub async fn table(store: &Arc<dyn Store>) -> BTreeMap<UserId, User> {
    let (mut users, mut last, size) = (BTreeMap::new(), None, PageSize::parse(1_000).unwrap());
    loop {
        let page = store.list(last.as_ref(), size, Deadline::NONE).await.unwrap();
        last = page.users.last().map(|user| user.id.clone());
        users.extend(page.users.into_iter().map(|user| (user.id.clone(), user)));
        if !page.more {
            return users;
        }
    }
}

/// The state that the log leads to at a revision.
async fn state_at(store: &Arc<dyn Store>, revision: u64) -> BTreeMap<UserId, User> {
    let entries = store.changes(0, usize::try_from(revision).unwrap(), Deadline::NONE).await.unwrap();
    let mut users = BTreeMap::new();
    for entry in entries {
        match entry.event {
            Event::Created(user) | Event::Updated(user) => drop(users.insert(user.id.clone(), user)),
            Event::Deleted(id) => drop(users.remove(&id)),
        }
    }
    users
}

/// Creates, updates and deletes at random on a few users each; ends with the
/// last revision.
pub fn busy(stores: &[Arc<dyn Store>], changes: usize) -> JoinHandle<u64> {
    const WRITERS: usize = 8;
    let stores = stores.to_vec();
    tokio::spawn(async move {
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let store = stores[writer % stores.len()].clone();
            writers.spawn(async move {
                let mut random = Random(writer as u64 + 1);
                let mut newest = 0;
                for _ in 0..changes / WRITERS {
                    let name = format!("user-{}-{writer}", random.below(30));
                    let age = Age::parse(random.below(100).try_into().unwrap()).unwrap();
                    let patch = Patch { age: Some(age), ..Patch::default() };
                    let change = match random.below(4) {
                        0 => delete(&name),
                        1 => create(&name),
                        _ => Change::Update { id: id(&name), patch, etag: None },
                    };
                    // A store in memory would let nobody else do anything meanwhile.
                    tokio::task::yield_now().await;
                    match write(&store, change).await {
                        Ok(written) => newest = written.revision,
                        Err(Error::NotFound(_) | Error::AlreadyExists(_)) => {
                            newest = stored(&store, put(&name)).await.revision;
                        }
                        Err(error) => panic!("{error:?}"),
                    }
                }
                newest
            });
        }
        writers.join_all().await.into_iter().max().unwrap()
    })
}

fn put(name: &str) -> Change {
    Change::Upsert { id: Some(id(name)), new_id: id("new"), fields: fields("Ada", name) }
}

/// A generator that gives the same for the same seed (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// Creates users, no more at the same time than one batch takes: a store with slow commits
/// refuses what would wait for more than one.
pub async fn users(store: &Arc<dyn Store>, count: usize) {
    const AT_ONCE: usize = 200;
    for first in (0..count).step_by(AT_ONCE) {
        let names: Vec<_> = (first..count.min(first + AT_ONCE)).map(|n| format!("old-{n}")).collect();
        join_all(names.iter().map(|name| stored(store, create(name)))).await;
    }
}

pub async fn what_is_told_adds_up_to_the_table(store: Arc<dyn Store>) {
    users(&store, 500).await;
    let running = Running::start(&store, ROOMY);
    let writing = busy(slice::from_ref(&store), 1_600);
    // Begun at different moments of the writing, each in the midst of it.
    let mut watching = JoinSet::new();
    for part in 0..4 {
        while store.log_head(Deadline::NONE).await.unwrap().newest.revision < 500 + part * 200 {
            tokio::task::yield_now().await;
        }
        let (feed, store) = (running.feed.clone(), store.clone());
        watching.spawn(async move {
            let mut watch = begin(&feed, None).await.unwrap();
            let mut folded = Folded::default();
            while folded.caught_up == 0 {
                folded.take(next(&mut watch).await.unwrap());
            }
            let Progress::Changes { after } = watch.token().at else { panic!("it is behind the scan") };
            assert!(folded.users == state_at(&store, after.revision).await, "the marker's state is exact");
            // Nothing comes any more where this began behind all writes.
            folded.revision = Some(after.revision);
            (watch, folded)
        });
    }
    writing.await.unwrap();
    let newest = stored(&store, create("last")).await.revision;
    let table = table(&store).await;
    while let Some(watched) = watching.join_next().await {
        let (mut watch, mut folded) = watched.unwrap();
        folded.follow(&mut watch, newest).await;
        assert!(folded.users == table, "what was told is the table");
        assert_eq!(folded.caught_up, 1);
    }
}

pub async fn a_watch_without_initial_state_tells_what_comes(store: Arc<dyn Store>) {
    users(&store, 10).await;
    let running = Running::start(&store, ROOMY);
    let mut watch = Watch::begin(&running.feed, false, None, Deadline::NONE).await.unwrap();
    assert!(matches!(next(&mut watch).await, Ok(Item::CaughtUp)));
    let ada = stored(&store, create("ada")).await;
    write(&store, delete("ada")).await.unwrap();
    let Ok(Item::Change(created)) = next(&mut watch).await else { panic!("nothing was told") };
    assert_eq!(created.event, Event::Created(ada));
    let Ok(Item::Change(deleted)) = next(&mut watch).await else { panic!("nothing was told") };
    assert_eq!(deleted.event, Event::Deleted(id("ada")));
}

pub async fn a_watch_resumed_anywhere_neither_skips_nor_repeats(store: Arc<dyn Store>) {
    resume_at_random(&[store], 1_600).await;
}

/// Ends a watch after a random number of messages and goes on with its token on a
/// random replica, while users change on all of them.
pub async fn resume_at_random(stores: &[Arc<dyn Store>], changes: usize) {
    users(&stores[0], 300).await;
    let feeds: Vec<_> = stores.iter().map(|store| Running::start(store, ROOMY)).collect();
    let writing = busy(stores, changes);
    let mut random = Random(42);
    let mut folded = Folded::default();
    let (mut token, mut resumed) = (None, 0);
    let mut newest = None;
    while newest.is_none_or(|newest| folded.revision != Some(newest)) {
        if newest.is_none() && writing.is_finished() {
            newest = Some(stores[0].log_head(Deadline::NONE).await.unwrap().newest.revision);
            continue;
        }
        let feed = &feeds[usize::try_from(random.below(feeds.len() as u64)).unwrap()].feed;
        let mut watch = begin(feed, token).await.unwrap();
        for _ in 0..random.below(60) {
            // Nothing may come any more, once all was told.
            let Ok(item) = tokio::time::timeout(Duration::from_millis(200), watch.next()).await else {
                break;
            };
            folded.take(item.unwrap());
        }
        token = Some(watch.token());
        resumed += 1;
    }
    assert_eq!(writing.await.unwrap(), newest.unwrap());
    assert!(folded.users == table(&stores[0]).await, "what was told is the table");
    assert!(resumed > folded.items / 60, "it was resumed {resumed} times");
}

pub async fn a_token_of_another_history_is_refused(store: Arc<dyn Store>) {
    users(&store, 5).await;
    let running = Running::start(&store, ROOMY);
    let token = begin(&running.feed, None).await.unwrap().token();
    users_named(&store, "more", 5).await;
    begin(&running.feed, Some(token.clone())).await.expect("it is good");
    let Progress::Scan { began, last } = token.at.clone() else { panic!("it is in the scan") };
    let later = Timestamp::from_micros(began.time.as_micros() + 1);
    let scan = |began| Progress::Scan { began, last: last.clone() };
    let same = token.store;
    for (store, at, seen) in [
        (StoreId([0; 16]), token.at.clone(), began),
        (same, scan(LogPosition { revision: 11, ..began }), began),
        (same, scan(LogPosition { time: later, ..began }), began),
        (same, Progress::Changes { after: LogPosition { time: later, ..began } }, began),
        (same, Progress::Changes { after: LogPosition { revision: u64::MAX, ..began } }, began),
        // A page of users was read later, and that part of the history is gone.
        (same, token.at.clone(), LogPosition { revision: 11, ..began }),
        (same, Progress::Changes { after: began }, LogPosition { revision: 7, time: later }),
    ] {
        let sent = ResumeToken { store, at, seen };
        let refused = begin(&running.feed, Some(sent.clone())).await.err();
        assert!(matches!(refused, Some(Error::ResumeTokenExpired)), "{sent:?}: {refused:?}");
    }
}

pub async fn users_named(store: &Arc<dyn Store>, name: &str, count: usize) {
    for n in 0..count {
        stored(store, create(&format!("{name}-{n}"))).await;
    }
}

pub async fn a_watch_that_falls_behind_is_cut_and_can_be_resumed(store: Arc<dyn Store>) {
    // Room for a few hundred changes.
    let running = Running::start(&store, 64 << 10);
    let mut slow = Watch::begin(&running.feed, false, None, Deadline::NONE).await.unwrap();
    let mut folded = Folded::default();
    folded.take(next(&mut slow).await.unwrap());
    stored(&store, create("first")).await;
    folded.follow(&mut slow, 1).await;
    // The buffer is there by now, and what comes while it waits comes from there.
    let (item, _) = tokio::join!(next(&mut slow), stored(&store, create("second")));
    folded.take(item.unwrap());
    let mut quick = Watch::begin(&running.feed, false, None, Deadline::NONE).await.unwrap();
    let mut other = Folded { revision: Some(2), ..Folded::default() };
    let newest = busy(slice::from_ref(&store), 1_600).await.unwrap();
    // It was not asked meanwhile, and what is older than the buffer is gone.
    let end = loop {
        match next(&mut slow).await {
            Ok(item) => folded.take(item),
            Err(end) => break end,
        }
    };
    assert!(matches!(end, WatchError::TooSlow), "{end:?}");
    assert!(folded.revision.unwrap() < newest / 2);
    let mut resumed = begin(&running.feed, Some(slow.token())).await.unwrap();
    folded.follow(&mut resumed, newest).await;
    assert!(folded.users == table(&store).await, "what was told is the table");
    // One that had not begun to be served from the buffer is not too slow for it.
    other.follow(&mut quick, newest).await;
}

/// A store that refuses every other page.
struct Busy {
    store: Arc<dyn Store>,
    pages: AtomicUsize,
}

#[async_trait]
impl Hooks for Busy {
    fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    async fn list(&self, after: Option<&UserId>, size: PageSize, deadline: Deadline) -> Result<Page, Error> {
        if self.pages.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            return Err(Error::Overloaded { retry_delay: Duration::from_millis(1) });
        }
        self.store.list(after, size, deadline).await
    }
}

#[tokio::test]
async fn a_watch_waits_where_the_store_has_too_many_reads() {
    let store = memory().store;
    for n in 0..250 {
        stored(&store, create(&format!("user-{n:03}"))).await;
    }
    let busy: Arc<dyn Store> = Arc::new(Forward(Busy { store, pages: AtomicUsize::new(0) }));
    let running = Running::start(&busy, ROOMY);
    let mut watch = begin(&running.feed, None).await.unwrap();
    let mut folded = Folded::default();
    while folded.caught_up == 0 {
        folded.take(next(&mut watch).await.unwrap());
    }
    assert_eq!(folded.users.len(), 250);
}

/// A store whose log, once it hangs, is read without an end, as that of a file on a disk that is gone.
struct Hanging {
    store: Arc<dyn Store>,
    hangs: AtomicBool,
}

#[async_trait]
impl Hooks for Hanging {
    fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    async fn changes(&self, after: Revision, limit: usize, deadline: Deadline) -> Result<Vec<Entry>, Error> {
        if self.hangs.load(Ordering::Relaxed) {
            future::pending::<()>().await;
        }
        self.store.changes(after, limit, deadline).await
    }
}

#[tokio::test(start_paused = true)]
async fn watches_end_where_a_read_of_the_log_does_not() {
    let store = memory().store;
    let hanging = Arc::new(Forward(Hanging { store: store.clone(), hangs: AtomicBool::new(false) }));
    let forward: Arc<dyn Store> = hanging.clone();
    let running = Running::start(&forward, ROOMY);
    let mut watch = begin(&running.feed, None).await.unwrap();
    while !matches!(next(&mut watch).await.unwrap(), Item::CaughtUp) {}
    // From now on the watch is told of what the feed has read.
    stored(&store, create("first")).await;
    assert!(matches!(next(&mut watch).await.unwrap(), Item::Change(_)));
    hanging.0.hangs.store(true, Ordering::Relaxed);
    stored(&store, create("second")).await;
    let end = next(&mut watch).await.unwrap_err();
    assert!(matches!(end, WatchError::Failed(Error::Unavailable(_))), "{end:?}");
    hanging.0.hangs.store(false, Ordering::Relaxed);
    let mut again = begin(&running.feed, None).await.unwrap();
    assert!(matches!(next(&mut again).await.unwrap(), Item::Existing(_)));
}
