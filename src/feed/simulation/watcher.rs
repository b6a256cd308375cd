//! A client that watches, and knows what it must be told.

use tokio::time;

use super::{
    END_MS, REPLICAS,
    database::{Bug, Connection, Database, Shared, Table},
};
use crate::{
    domain::{Deadline, Error, Event, Progress, ResumeToken, Revision},
    feed::{Item, Watch, WatchError},
    util::actor::Actor,
};

pub struct Watcher {
    shared: Shared,
    view: Table,
    /// Whether the view is one that the table had.
    is_whole: bool,
    token: Option<ResumeToken>,
    /// The lineage that the token is of.
    lineage: usize,
}

impl Watcher {
    pub fn new(shared: Shared) -> Self {
        Self { shared, view: Table::new(), is_whole: false, token: None, lineage: 0 }
    }

    /// Watches until it has seen everything, on one replica after the other.
    pub async fn run(mut self) {
        while !self.is_done() {
            if Actor::now() > END_MS {
                let newest = self.shared.lock().unwrap().newest();
                let position = self.position();
                self.shared.lock().unwrap().fault(format!("stuck at {position:?} of {newest}"));
                return;
            }
            Actor::pause(1..=20).await;
            let replica = Actor::draw(|random| random.usize(..REPLICAS));
            let Some(connection) = self.shared.lock().unwrap().connect(replica) else { continue };
            self.watch(&connection).await;
        }
        let mut database = self.shared.lock().unwrap();
        if database.table_at(database.newest()) != Some(&self.view) {
            database.fault(format!("skipped: the view is not the table: {:?}", self.view));
        }
    }

    fn is_done(&self) -> bool {
        super::is_quiet()
            && self.is_whole
            && self.position() == Some(self.shared.lock().unwrap().newest())
            && self.lineage == self.shared.lock().unwrap().lineage()
    }

    /// The revision of the last change that it knows.
    fn position(&self) -> Option<Revision> {
        match &self.token.as_ref()?.at {
            Progress::Changes { after } => Some(after.revision),
            Progress::Scan { .. } => None,
        }
    }

    /// One watch, until it ends or the client goes elsewhere.
    async fn watch(&mut self, connection: &Connection) {
        let token = self.token.clone().map(|token| self.sent(token));
        let begun = Watch::begin(&connection.feed, true, token, Deadline::NONE).await;
        if !connection.is_open() {
            return;
        }
        let mut watch = match begun {
            Ok(watch) => watch,
            Err(error) => return self.ended(connection, &error),
        };
        self.resumed(connection);
        let patience = Actor::draw(|random| random.u64(1..400));
        let leaves = Actor::moment(patience);
        let is_slow = Actor::draw(|random| random.u8(..4) == 0) && !super::is_quiet();
        loop {
            // The connection of a replica that ends is closed.
            let look = Actor::moment(5);
            let item = match time::timeout_at(look, watch.next()).await {
                Ok(item) => item,
                Err(_) if connection.is_open() && look < leaves && !self.is_done() => continue,
                Err(_) => return,
            };
            match item {
                Ok(item) => self.told(connection, &item),
                Err(WatchError::TooSlow) => return self.shared.lock().unwrap().say("too slow"),
                Err(WatchError::Failed(error)) => return self.ended(connection, &error),
            }
            self.token = Some(watch.token());
            if is_slow {
                Actor::pause(1..=20).await;
            }
        }
    }

    /// The token that is sent back.
    fn sent(&self, mut token: ResumeToken) -> ResumeToken {
        let database = self.shared.lock().unwrap();
        if database.bug == Bug::TokenOneShort
            && let Progress::Changes { after } = &mut token.at
            && let Some(before) = database.entry_at(after.revision.saturating_sub(1))
        {
            *after = before;
            token.seen = before;
        }
        if database.bug == Bug::NothingSeen {
            token.seen = match token.at {
                Progress::Scan { began, .. } => began,
                Progress::Changes { after } => after,
            };
        }
        ResumeToken::parse(&token.encode()).expect("a token is read as it was written")
    }

    /// A token was taken: what was told up to it must be what this database was.
    fn resumed(&mut self, connection: &Connection) {
        let mut database = self.shared.lock().unwrap();
        if connection.lineage != database.lineage() {
            return;
        }
        if let Some(position) = self.position()
            && self.is_whole
            && database.table_at(position) != Some(&self.view)
        {
            database.fault(format!("resumed at {position} of another history"));
        }
        self.lineage = connection.lineage;
        database.say(format!("watches at {:?}", self.position()));
    }

    fn told(&mut self, connection: &Connection, item: &Item) {
        let mut database = self.shared.lock().unwrap();
        let known = connection.lineage == database.lineage();
        match item {
            Item::Existing(user) => {
                if self.view.insert(user.id.clone(), user.revision).is_some() {
                    database.fault(format!("repeated: {:?} exists twice", user.id));
                }
            }
            Item::CaughtUp => {
                self.is_whole = true;
                database.say("caught up");
            }
            Item::Change(entry) => {
                let revision = entry.position.revision;
                if let Some(before) = self.position().filter(|before| before + 1 != revision) {
                    let what = if revision <= before { "repeated" } else { "skipped" };
                    database.fault(format!("{what}: {revision} after {before}"));
                }
                match &entry.event {
                    Event::Deleted(id) => drop(self.view.remove(id)),
                    Event::Created(user) | Event::Updated(user) => {
                        self.view.insert(user.id.clone(), user.revision);
                    }
                }
                database.say(format!("told {revision}"));
                if known && self.is_whole {
                    self.compare(&mut database, revision);
                }
            }
        }
    }

    fn compare(&self, database: &mut Database, revision: Revision) {
        if database.table_at(revision) != Some(&self.view) {
            let was = format!("{:?}", database.table_at(revision));
            database.fault(format!(
                "skipped: at {revision} the view is {:?}, and the table was {was}",
                self.view
            ));
        }
    }

    /// A watch ended with an error. An expired token has a cause, and then everything begins anew.
    fn ended(&mut self, connection: &Connection, error: &Error) {
        let mut database = self.shared.lock().unwrap();
        database.say(format!("ended: {error}"));
        if !matches!(error, Error::ResumeTokenExpired) {
            return;
        }
        let after = self.token.as_ref().map(|token| match &token.at {
            Progress::Changes { after } => after.revision,
            Progress::Scan { began, .. } => began.revision,
        });
        let is_other_history = self.lineage != database.lineage() || connection.lineage != database.lineage();
        let is_pruned = after.is_none_or(|after| after <= database.pruned());
        if !is_other_history && !is_pruned {
            let pruned = database.pruned();
            database.fault(format!("expired without a cause: {after:?}, pruned up to {pruned}"));
        }
        self.token = None;
        self.view.clear();
        self.is_whole = false;
    }
}
