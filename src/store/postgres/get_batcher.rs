//! Coalesces reads of one user into statements.
//!
//! A statement costs the database more than finding a row. So at most [`MAX_STATEMENTS`]
//! of a thread run concurrently, and further reads queue and share the next one. Under
//! light load each read is sent immediately. A statement is sent after its reads were
//! queued, so they see every write that was acknowledged before.
//!
//! To wake another thread takes longer than such a statement. So the first threads that
//! read open a connection each, which their runtime drives.
//!
//! Where more reads wait than a statement takes, the newest are sent first. Oldest first,
//! all of them would be answered too late once the queue is as long as a deadline.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use tokio::{
    runtime::{self, Handle},
    sync::oneshot,
};

use super::{
    readers::Readers,
    reconnecting::{Connector, ReconnectingSession},
    rows,
    session::Param,
    sql::Sql,
};
use crate::{
    domain::{Deadline, Error, User, UserKey},
    store::metrics::GaugeGuard,
};

/// The most reads in one statement.
const MAX_GETS_PER_STATEMENT: usize = 256;

/// How many statements of this kind are under way at most.
const MAX_STATEMENTS: usize = 2;

/// The reads that are not shared out to two statements: a row costs less than a statement.
const MIN_SHARE: usize = 4;

type GetAnswer = Result<Option<Arc<User>>, Error>;

/// A read that waits for its turn, and who waits for it.
struct PendingGet {
    key: UserKey,
    answer: oneshot::Sender<GetAnswer>,
    /// In the metrics: that it waits, and then that it was asked.
    counted: GaugeGuard,
}

pub(super) struct GetBatcher {
    readers: Arc<Readers>,
    connector: Arc<Connector>,
    /// How many runtimes open a connection.
    connections: usize,
    queues: RwLock<Vec<Arc<GetQueue>>>,
}

/// The reads of one runtime.
struct GetQueue {
    runtime: runtime::Id,
    /// Driven by that runtime.
    own: Option<ReconnectingSession>,
    readers: Arc<Readers>,
    waiting: Mutex<PendingGets>,
}

#[derive(Default)]
struct PendingGets {
    reads: Vec<PendingGet>,
    /// Who takes them.
    workers: usize,
    /// How many statements are under way.
    statements: usize,
}

impl PendingGets {
    /// The newest reads whose callers still wait, for the next statement. Older ones wait for
    /// less load, and no longer than their callers.
    ///
    /// It leaves a share for each further statement that may run: while the database reads
    /// for one share, the callers of another are answered and ask again.
    fn newest(&mut self) -> Vec<PendingGet> {
        self.reads.retain(|get| !get.answer.is_closed());
        let share = self.reads.len().div_ceil(MAX_STATEMENTS - self.statements);
        let size = share.clamp(MIN_SHARE, MAX_GETS_PER_STATEMENT);
        let from = self.reads.len().saturating_sub(size);
        self.reads.split_off(from)
    }
}

impl GetBatcher {
    /// One that opens so many connections at most, and shares those of `readers` otherwise.
    pub fn new(readers: Arc<Readers>, connector: Arc<Connector>, connections: usize) -> Self {
        Self { readers, connector, connections, queues: RwLock::default() }
    }

    pub async fn get(&self, key: &UserKey, deadline: Deadline) -> GetAnswer {
        let reading = async {
            let (answer, answered) = oneshot::channel();
            let counted = self.readers.metrics.queued();
            let queue = self.queue();
            if queue.enqueue(PendingGet { key: key.clone(), answer, counted }) {
                tokio::spawn(Worker { queue, counted: true, is_asking: false }.work());
            }
            answered.await.unwrap_or_else(|_| Err(Error::Internal("the read was not answered".into())))
        };
        self.readers.in_time(deadline, reading).await
    }

    /// The queue of the runtime that calls.
    fn queue(&self) -> Arc<GetQueue> {
        let runtime = Handle::current().id();
        let known = |queues: &[Arc<GetQueue>]| queues.iter().find(|queue| queue.runtime == runtime).cloned();
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = known(&queues) {
            return queue;
        }
        drop(queues);
        // Only this runtime adds itself, but a runtime may have several threads.
        let mut queues = self.queues.write().unwrap_or_else(PoisonError::into_inner);
        known(&queues).unwrap_or_else(|| {
            let has_own = queues.len() < self.connections;
            let own = has_own.then(|| ReconnectingSession::keep(Arc::clone(&self.connector), "read"));
            let readers = Arc::clone(&self.readers);
            let queue = Arc::new(GetQueue { runtime, own, readers, waiting: Mutex::default() });
            queues.push(Arc::clone(&queue));
            queue
        })
    }

    pub fn close(&self) {
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        queues.iter().filter_map(|queue| queue.own.as_ref()).for_each(ReconnectingSession::close);
    }
}

impl GetQueue {
    /// Whether there is to be one more taker, who is counted from now on.
    fn enqueue(&self, get: PendingGet) -> bool {
        let mut waiting = self.waiting();
        waiting.reads.push(get);
        let more = waiting.workers < MAX_STATEMENTS;
        waiting.workers += usize::from(more);
        more
    }

    fn waiting(&self) -> MutexGuard<'_, PendingGets> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads for all of them in one statement.
    async fn read(&self, mut gets: Vec<PendingGet>) {
        let (mut ids, mut emails) = (Vec::new(), Vec::new());
        for PendingGet { key, counted, .. } in &mut gets {
            *counted = self.readers.metrics.in_flight();
            match key {
                UserKey::Id(id) => ids.push(id.as_str()),
                UserKey::Email(email) => emails.push(email.as_str()),
            }
        }
        let params: [Param; 2] = [&ids, &emails];
        // Most reads are by id, and half a statement is quicker.
        let (sql, params) =
            if emails.is_empty() { (Sql::UsersById, &params[..1]) } else { (Sql::Users, &params[..]) };
        let asking = self.readers.ask(self.own.as_ref(), sql, params);
        let found = self.readers.in_time(Deadline::NONE, asking).await;
        let found = found.and_then(|rows| rows::users(&rows));
        let found = found.map(|users| users.into_iter().map(Arc::new).collect::<Vec<_>>());
        let users = || found.iter().flatten();
        let by_id: HashMap<_, _> = users().map(|user| (&user.id, user)).collect();
        // Not made where no read is by address.
        let by_email: HashMap<_, _> =
            users().filter(|_| !emails.is_empty()).map(|user| (&user.fields.email, user)).collect();
        for PendingGet { key, answer, .. } in gets {
            let user = match &key {
                UserKey::Id(id) => by_id.get(id),
                UserKey::Email(email) => by_email.get(email),
            };
            // The caller may be gone.
            let _ = answer.send(match &found {
                Ok(_) => Ok(user.map(|user| Arc::clone(user))),
                Err(error) => Err(clone_error(error)),
            });
        }
    }
}

/// One that takes what waits, until nothing does.
struct Worker {
    queue: Arc<GetQueue>,
    counted: bool,
    /// Whether its statement is counted.
    is_asking: bool,
}

impl Worker {
    async fn work(mut self) {
        while let Some(gets) = self.take() {
            self.queue.read(gets).await;
        }
    }

    /// **Invariant:** the check and the count share one lock. A read queued between them
    /// would have no worker.
    fn take(&mut self) -> Option<Vec<PendingGet>> {
        let mut waiting = self.queue.waiting();
        waiting.statements -= usize::from(self.is_asking);
        let gets = waiting.newest();
        self.is_asking = !gets.is_empty();
        waiting.statements += usize::from(self.is_asking);
        if gets.is_empty() {
            waiting.workers -= 1;
            self.counted = false;
            return None;
        }
        Some(gets)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Its runtime ended it, or a panic.
        if self.counted {
            let mut waiting = self.queue.waiting();
            waiting.workers -= 1;
            waiting.statements -= usize::from(self.is_asking);
            if waiting.workers == 0 {
                // They would wait for ever.
                waiting.reads.clear();
            }
        }
    }
}

/// The same error for another read of the statement.
fn clone_error(error: &Error) -> Error {
    match error {
        Error::Unavailable(why) => Error::Unavailable(why),
        Error::Internal(source) => Error::Internal(source.to_string().into()),
        other => Error::Internal(other.to_string().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::UserId, store::metrics::ReadMetrics};

    type Callers = Vec<oneshot::Receiver<GetAnswer>>;

    /// So many reads by id, each with its caller.
    fn waiting(reads: usize) -> (PendingGets, Callers) {
        let metrics = ReadMetrics::new();
        let (mut waiting, mut callers) = (PendingGets::default(), Vec::new());
        for _ in 0..reads {
            let (answer, answered) = oneshot::channel();
            callers.push(answered);
            let key = UserKey::Id(UserId::generate());
            waiting.reads.push(PendingGet { key, answer, counted: metrics.queued() });
        }
        (waiting, callers)
    }

    #[test]
    fn two_statements_share_what_waits() {
        let taken = |waiting: &mut PendingGets| {
            let taken = waiting.newest().len();
            waiting.statements += 1;
            taken
        };
        for (reads, first, second) in [(16, 8, 8), (7, 4, 3), (MIN_SHARE, MIN_SHARE, 0)] {
            let (mut waiting, _callers) = waiting(reads);
            assert_eq!((taken(&mut waiting), taken(&mut waiting)), (first, second), "of {reads} reads");
        }
    }

    #[test]
    fn where_more_reads_wait_than_a_statement_takes_the_newest_are_sent_first() {
        let (mut waiting, mut callers) = waiting(3 * MAX_GETS_PER_STATEMENT);
        // The other statement is under way.
        waiting.statements = MAX_STATEMENTS - 1;
        let id = |get: &PendingGet| match &get.key {
            UserKey::Id(id) => id.clone(),
            UserKey::Email(_) => panic!("no read is by an address"),
        };
        let ids: Vec<_> = waiting.reads.iter().map(id).collect();
        let sent = |gets: Vec<PendingGet>| gets.iter().map(id).collect::<Vec<_>>();
        assert_eq!(sent(waiting.newest()), ids[2 * MAX_GETS_PER_STATEMENT..]);
        // The oldest caller of those that are left has given up.
        callers.remove(0);
        assert_eq!(sent(waiting.newest()), ids[MAX_GETS_PER_STATEMENT..2 * MAX_GETS_PER_STATEMENT]);
        assert_eq!(sent(waiting.newest()), ids[1..MAX_GETS_PER_STATEMENT]);
        assert!(waiting.newest().is_empty());
    }
}
