//! The simulated database, and the replicas that serve watches of it.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Display,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use async_trait::async_trait;
use tokio::task::AbortHandle;

use crate::{
    domain::{
        Deadline, Entry, Error, Event, Fields, LogHead, LogPosition, Page, PageSize, Revision, Store,
        StoreHealth, StoreId, Timestamp, User, UserId, UserKey, Write, WriteResult,
    },
    feed::Feed,
    util::{
        actor::{Actor, as_actor},
        simulation::Log,
    },
};

/// A bug that is put in, to see that it is caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    None,
    /// A client's token names the entry before.
    TokenOneShort,
    /// Revisions are taken before the commit, so they are not in its order.
    Sequence,
    /// A token does not say how new the users are that were told.
    NothingSeen,
    /// Every entry has the same time, so a restore cannot be told.
    NoTimes,
    /// A revision is known before its entry can be read.
    EarlyAnswer,
}

pub type Shared = Arc<Mutex<Database>>;

/// The revision of each user.
pub type Table = BTreeMap<UserId, Revision>;

/// Everything that a backup holds.
#[derive(Clone)]
struct Contents {
    users: BTreeMap<UserId, User>,
    log: VecDeque<Entry>,
    newest: LogPosition,
    /// The table at each revision, pruned ones as well.
    history: BTreeMap<Revision, Table>,
    /// Up to here the log was pruned.
    pruned: Revision,
    /// How many backups were restored before this.
    lineage: usize,
}

pub struct Database {
    pub bug: Bug,
    contents: Contents,
    backup: Option<Contents>,
    next_revision: Revision,
    lineages: usize,
    replicas: Vec<Option<Replica>>,
    pub log: Log,
    pub wrong: Vec<String>,
}

struct Replica {
    feed: Feed,
    store: Arc<SimulatedStore>,
    reader: AbortHandle,
}

/// A watcher's end of a replica.
#[derive(Clone)]
pub struct Connection {
    pub feed: Feed,
    store: Arc<SimulatedStore>,
    pub lineage: usize,
}

impl Connection {
    pub fn is_open(&self) -> bool {
        self.store.is_running.load(Relaxed)
    }
}

impl Database {
    pub fn new(bug: Bug) -> Self {
        let contents = Contents {
            users: BTreeMap::new(),
            log: VecDeque::new(),
            newest: LogPosition::BEGINNING,
            history: [(0, Table::new())].into(),
            pruned: 0,
            lineage: 0,
        };
        Self {
            bug,
            contents,
            backup: None,
            next_revision: 1,
            lineages: 1,
            replicas: (0..super::REPLICAS).map(|_| None).collect(),
            log: Log::default(),
            wrong: Vec::new(),
        }
    }

    pub fn say(&mut self, what: impl Display) {
        self.log.say(what);
    }

    pub fn fault(&mut self, what: impl Display) {
        self.wrong.push(format!("{} {}: {what}", Actor::now(), Actor::identity().1));
        self.say(what);
    }

    pub fn connect(&self, replica: usize) -> Option<Connection> {
        let replica = self.replicas.get(replica)?.as_ref()?;
        let (feed, store) = (replica.feed.clone(), Arc::clone(&replica.store));
        Some(Connection { feed, store, lineage: self.contents.lineage })
    }

    /// The table as it was at a revision of the present lineage.
    pub fn table_at(&self, revision: Revision) -> Option<&Table> {
        self.contents.history.get(&revision)
    }

    pub fn entry_at(&self, revision: Revision) -> Option<LogPosition> {
        self.contents.log.iter().map(|entry| entry.position).find(|position| position.revision == revision)
    }

    pub fn newest(&self) -> Revision {
        self.contents.newest.revision
    }

    pub fn pruned(&self) -> Revision {
        self.contents.pruned
    }

    pub fn lineage(&self) -> usize {
        self.contents.lineage
    }

    pub fn prune(&mut self, kept: usize) {
        while self.contents.log.len() > kept
            && let Some(entry) = self.contents.log.pop_front()
        {
            self.contents.pruned = entry.position.revision;
        }
        self.say(format!("pruned up to {}", self.contents.pruned));
    }

    pub fn take_backup(&mut self) {
        self.backup = Some(self.contents.clone());
        self.say(format!("backup at {}", self.newest()));
    }

    pub fn restore(&mut self) {
        let Some(backup) = self.backup.clone() else { return };
        self.contents = Contents { lineage: self.lineages, ..backup };
        self.lineages += 1;
        self.next_revision = self.newest() + 1;
        self.say(format!("restored at {}", self.newest()));
    }

    fn commit(&mut self, revision: Revision, id: &UserId, delete: bool) {
        let contents = &mut self.contents;
        let time = if self.bug == Bug::NoTimes { 0 } else { i64::try_from(Actor::now()).unwrap() };
        let time = Timestamp::from_micros(time);
        let event = if delete && contents.users.remove(id).is_some() {
            Event::Deleted(id.clone())
        } else {
            let fields = Fields::example("ada@example.com");
            let user = User { id: id.clone(), fields, create_time: time, update_time: time, revision };
            match contents.users.insert(id.clone(), user.clone()) {
                None => Event::Created(user),
                Some(_) => Event::Updated(user),
            }
        };
        let position = LogPosition { revision, time };
        let at = contents.log.partition_point(|entry| entry.position.revision < revision);
        contents.log.insert(at, Entry { position, event });
        if revision > contents.newest.revision {
            contents.newest = position;
        }
        let table = contents.users.iter().map(|(id, user)| (id.clone(), user.revision)).collect();
        contents.history.insert(revision, table);
        self.say(format!("committed {revision}"));
    }
}

/// Makes one write.
pub async fn write(shared: &Shared, id: u8, delete: bool) {
    let id = UserId::parse(&format!("user-{id}")).unwrap();
    let (revision, lineage, bug) = {
        let mut database = shared.lock().unwrap();
        if database.replicas.iter().all(Option::is_none) {
            return;
        }
        let revision = database.next_revision;
        database.next_revision += 1;
        let (lineage, bug) = (database.lineage(), database.bug);
        if bug == Bug::EarlyAnswer {
            database.contents.newest.revision = revision;
        } else if bug != Bug::Sequence {
            database.commit(revision, &id, delete);
            return;
        }
        (revision, lineage, bug)
    };
    Actor::pause(1..=10).await;
    let mut database = shared.lock().unwrap();
    if database.lineage() == lineage {
        database.commit(revision, &id, delete);
        if bug == Bug::EarlyAnswer {
            database.contents.newest.revision = database.next_revision - 1;
        }
    }
}

/// Starts a replica, in place of the one that may run.
pub fn start_replica(shared: &Shared, number: usize, reader: &Actor) {
    stop_replica(shared, number);
    let store = Arc::new(SimulatedStore { database: Arc::clone(shared), is_running: AtomicBool::new(true) });
    // Room for few entries, so that slow watches fall behind.
    let feed = Feed::new(Arc::clone(&store) as Arc<dyn Store>, 4_096);
    let read = tokio::spawn(as_actor(reader.clone(), feed.clone().read()));
    let replica = Replica { feed, store, reader: read.abort_handle() };
    let mut database = shared.lock().unwrap();
    database.replicas[number] = Some(replica);
}

fn stop_replica(shared: &Shared, number: usize) {
    let replica = shared.lock().unwrap().replicas.get_mut(number).and_then(Option::take);
    if let Some(replica) = replica {
        replica.store.is_running.store(false, Relaxed);
        replica.reader.abort();
    }
}

pub fn stop_replicas(shared: &Shared) {
    for number in 0..super::REPLICAS {
        stop_replica(shared, number);
    }
}

/// What a replica reads the database with.
struct SimulatedStore {
    database: Shared,
    is_running: AtomicBool,
}

impl SimulatedStore {
    /// Asks, and gets an answer later, or none. The answer is of a moment in between.
    async fn ask<T>(&self, answer: impl FnOnce(&Contents) -> T) -> Result<T, Error> {
        const LOST: Error = Error::Unavailable("the answer was lost");
        Actor::pause(0..=4).await;
        let answer = answer(&self.database.lock().unwrap().contents);
        Actor::pause(0..=4).await;
        let is_lost = Actor::draw(|random| random.u8(..20) == 0) && !super::is_quiet();
        if is_lost || !self.is_running.load(Relaxed) { Err(LOST) } else { Ok(answer) }
    }
}

#[async_trait]
impl Store for SimulatedStore {
    async fn get(&self, _: &UserKey, _: Deadline) -> Result<Option<Arc<User>>, Error> {
        unreachable!("a watch reads no single user")
    }

    async fn batch_get(&self, _: &[UserId], _: Deadline) -> Result<Vec<Option<User>>, Error> {
        unreachable!("a watch reads no single user")
    }

    async fn list(&self, after: Option<&UserId>, _: PageSize, _: Deadline) -> Result<Page, Error> {
        // Small pages, so that a scan takes several.
        self.ask(|contents| {
            let users = contents.users.values().filter(|user| after.is_none_or(|after| user.id > *after));
            let mut users: Vec<_> = users.cloned().collect();
            let more = users.len() > 3;
            users.truncate(3);
            Page { users, more }
        })
        .await
    }

    async fn write(&self, _: Write, _: Deadline) -> Result<WriteResult, Error> {
        unreachable!("a watch writes nothing")
    }

    async fn log_head(&self, _: Deadline) -> Result<LogHead, Error> {
        self.ask(|contents| LogHead { store: StoreId([7; 16]), newest: contents.newest }).await
    }

    async fn changes(&self, after: Revision, limit: usize, _: Deadline) -> Result<Vec<Entry>, Error> {
        self.ask(|contents| {
            let newer = contents.log.iter().filter(|entry| entry.position.revision > after);
            newer.take(limit).cloned().collect()
        })
        .await
    }

    async fn changed(&self, after: Revision) {
        while self.database.lock().unwrap().newest() <= after {
            Actor::pause(1..=3).await;
        }
        Actor::pause(0..=3).await;
    }

    async fn probe(&self) -> StoreHealth {
        StoreHealth { reads: true, writes: true }
    }

    async fn close(&self) {}
}
