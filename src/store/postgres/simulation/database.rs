//! The simulated database: connections, transactions, and the lock of the counter.

use std::{
    fmt::Display,
    mem,
    sync::{Arc, Mutex},
};

use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio_postgres::types::Type;

use super::{
    Bug,
    tables::{Effect, Tables},
    wire::{self, Answer, Cell, Request},
};
use crate::{
    store::{postgres::sql::Sql, queue::Queue},
    util::{actor::Actor, simulation::Log},
};

/// How many steps a transaction waits for the counter.
const LOCK_STEPS: u64 = 100;

pub type Shared = Arc<Mutex<Database>>;

pub struct Database {
    pub bug: Bug,
    pub committed: Tables,
    /// The last revision that was given out, where that is no part of a transaction.
    sequence: i64,
    /// The connection that holds the counter's row.
    owner: Option<u64>,
    connections: u64,
    /// How often the server was restarted.
    epoch: u64,
    pub log: Log,
    /// The highest revision that any caller was told.
    pub known: u64,
    /// Whether the next commit is made and its connection cut before the answer.
    pub cuts_next_commit: bool,
    /// How often the server was restarted while a batch held the counter.
    pub cut_batches: usize,
    /// How often a transaction was begun within another one.
    pub joined: usize,
    /// Whether sessions allow a batch of one statement.
    pub has_limits: bool,
    /// How many batches were committed by one statement.
    pub alone: usize,
    /// Where the callers of each replica put their writes.
    pub queues: Vec<Arc<Queue>>,
}

impl Database {
    pub fn new(bug: Bug) -> Self {
        Self {
            bug,
            committed: Tables::default(),
            sequence: 0,
            owner: None,
            connections: 0,
            epoch: 0,
            log: Log::default(),
            known: 0,
            cuts_next_commit: false,
            cut_batches: 0,
            joined: 0,
            has_limits: true,
            alone: 0,
            queues: Vec::new(),
        }
    }

    pub fn say(&mut self, what: impl Display) {
        self.log.say(what);
    }

    /// Ends every connection; what was not committed is gone.
    pub fn restart(&mut self) {
        self.epoch += 1;
        self.cut_batches += usize::from(self.owner.take().is_some());
        self.say("restarts");
    }

    /// Whether the answer to this request is lost because a test asks for it.
    fn is_commit_cut(&mut self, request: &Request) -> bool {
        let is_commit = match request {
            Request::Simple(sql) => sql == "COMMIT",
            Request::Prepared(sql, _) => sql == Sql::CommitAlone.text(),
            Request::Sync => false,
        };
        is_commit && mem::take(&mut self.cuts_next_commit)
    }

    fn commit(&mut self, connection: u64, effects: Vec<Effect>) {
        if !effects.is_empty() {
            for effect in effects {
                self.committed.apply(effect);
            }
            let revision = self.committed.revision;
            self.say(format!("commits up to {revision}"));
        }
        self.release(connection);
    }

    fn release(&mut self, connection: u64) {
        if self.owner == Some(connection) {
            self.owner = None;
        }
    }
}

/// One time in so many, while faults happen.
fn is_unlucky(one_in: u32) -> bool {
    !super::is_quiet() && Actor::draw(|random| random.u32(..one_in)) == 0
}

#[derive(Default)]
struct Transaction {
    /// By BEGIN, so that it outlives a statement.
    is_begun: bool,
    /// The tables as it sees them, once it has the counter.
    tables: Option<Tables>,
    effects: Vec<Effect>,
    is_failed: bool,
}

/// The server's end of a connection.
pub struct Backend {
    shared: Shared,
    number: u64,
    epoch: u64,
    transaction: Option<Transaction>,
    /// Committed only after its answer, by a bug.
    late: Option<Vec<Effect>>,
}

impl Backend {
    pub fn new(shared: Shared) -> Self {
        let (number, epoch) = {
            let mut database = shared.lock().unwrap();
            database.connections += 1;
            (database.connections, database.epoch)
        };
        Self { shared, number, epoch, transaction: None, late: None }
    }

    /// Answers requests until the client or the server ends the connection. An answer may be lost
    /// with the connection; what was sent before may still arrive, much later.
    pub async fn serve(mut self, mut input: DuplexStream, output: DuplexStream) {
        let mut output = Some(output);
        if let Some(output) = &mut output
            && wire::start(&mut input, output).await.is_err()
        {
            return;
        }
        while let Ok(request) = wire::next(&mut input).await {
            Actor::pause(0..=2).await;
            if output.is_some() && is_unlucky(60) {
                output = None;
                self.shared.lock().unwrap().say("cut; what was sent comes later");
                Actor::pause(0..=150).await;
            }
            if self.is_over() {
                break;
            }
            let Some(answer) = self.execute(&request).await else { break };
            if is_unlucky(80) || self.shared.lock().unwrap().is_commit_cut(&request) {
                output = None;
            }
            let state = match &self.transaction {
                None => b'I',
                Some(transaction) if transaction.is_failed => b'E',
                Some(_) => b'T',
            };
            if let Some(output) = &mut output {
                let _ = output.write_all(&wire::encode(&request, &answer, state)).await;
            }
            if let Some(effects) = self.late.take() {
                Actor::pause(1..=20).await;
                if self.is_over() {
                    break;
                }
                self.shared.lock().unwrap().commit(self.number, effects);
            }
        }
        self.shared.lock().unwrap().release(self.number);
    }

    fn is_over(&self) -> bool {
        self.shared.lock().unwrap().epoch != self.epoch
    }

    /// `None` where the server is gone.
    async fn execute(&mut self, request: &Request) -> Option<Answer> {
        let (sql, params) = match request {
            Request::Sync => return Some(Answer::Done),
            Request::Simple(sql) => return Some(self.simple(sql)),
            Request::Prepared(sql, params) => (sql, params),
        };
        let Some(sql) = Sql::ALL.iter().copied().find(|known| known.text() == sql) else {
            // What a session asks first: its process, and settings to correct.
            let row = vec![Cell::of(&Type::INT4, &1_i32), Cell::of(&Type::TEXT, &"")];
            return Some(Answer::Rows(vec![Type::INT4, Type::TEXT], vec![row]));
        };
        let mut transaction = self.transaction.take().unwrap_or_default();
        if transaction.is_failed {
            self.transaction = Some(transaction);
            return Some(Answer::Error("25P02"));
        }
        let locks = matches!(
            sql,
            Sql::TakeRevisions | Sql::LockRevision | Sql::Touch | Sql::Fence | Sql::CommitAlone
        );
        let bug = self.shared.lock().unwrap().bug;
        if locks && transaction.tables.is_none() {
            if bug != Bug::Sequence && !self.lock().await {
                transaction.is_failed = true;
                self.transaction = Some(transaction).filter(|transaction| transaction.is_begun);
                return (!self.is_over()).then_some(Answer::Error("55P03"));
            }
            transaction.tables = Some(self.shared.lock().unwrap().committed.clone());
        }
        let mut database = self.shared.lock().unwrap();
        let database = &mut *database;
        let answer = if let Some(tables) = &mut transaction.tables {
            tables.run(sql, params, bug, &mut database.sequence, &mut transaction.effects)
        } else {
            let mut tables = database.committed.clone();
            tables.run(sql, params, bug, &mut database.sequence, &mut Vec::new())
        };
        transaction.is_failed = matches!(answer, Answer::Error(_));
        if transaction.is_begun {
            self.transaction = Some(transaction);
        } else if transaction.is_failed {
            database.release(self.number);
        } else {
            database.alone += usize::from(sql == Sql::CommitAlone && !transaction.effects.is_empty());
            if database.bug == Bug::EarlyAnswer && !transaction.effects.is_empty() {
                self.late = Some(transaction.effects);
            } else {
                database.commit(self.number, transaction.effects);
            }
        }
        Some(answer)
    }

    fn simple(&mut self, sql: &str) -> Answer {
        let before = self.transaction.take();
        if sql.starts_with("BEGIN") {
            // Within a transaction it is a warning, and changes nothing.
            self.shared.lock().unwrap().joined += usize::from(before.is_some());
            self.transaction = Some(Transaction { is_begun: true, ..before.unwrap_or_default() });
        } else if sql == "COMMIT"
            && let Some(Transaction { effects, is_failed: false, .. }) = before
        {
            let mut database = self.shared.lock().unwrap();
            if database.bug == Bug::EarlyAnswer && !effects.is_empty() {
                self.late = Some(effects);
            } else {
                database.commit(self.number, effects);
            }
        } else {
            self.shared.lock().unwrap().release(self.number);
        }
        Answer::Done
    }

    /// Waits for the counter's row; whether it was got.
    async fn lock(&self) -> bool {
        for _ in 0..LOCK_STEPS {
            {
                let mut database = self.shared.lock().unwrap();
                if database.epoch != self.epoch {
                    return false;
                }
                if database.owner.is_none() {
                    database.owner = Some(self.number);
                    return true;
                }
            }
            Actor::pause(1..=1).await;
        }
        false
    }
}
