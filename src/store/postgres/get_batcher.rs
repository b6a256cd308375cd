//! Coalesces reads of one user into statements.
//!
//! A statement costs the database more than finding a row. So at most [`MAX_STATEMENTS`]
//! run concurrently, and further reads queue and share the next one. Under light load
//! each read is sent immediately. A statement is sent after its reads were queued, so
//! they see every write that was acknowledged before.
//!
//! Where more reads wait than a statement takes, the newest are sent first. Oldest first,
//! all of them would be answered too late once the queue is as long as a deadline.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use super::{CLOSED, readers::Readers, rows, session::Param, sql::Sql};
use crate::{
    domain::{Deadline, Error, User, UserKey},
    store::metrics::GaugeGuard,
};

/// The most reads in one statement.
const MAX_GETS_PER_STATEMENT: usize = 256;

/// How many statements of this kind are under way at most.
const MAX_STATEMENTS: usize = 2;

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
    waiting: Mutex<PendingGets>,
}

#[derive(Default)]
struct PendingGets {
    reads: Vec<PendingGet>,
    /// Who takes them.
    workers: usize,
}

impl PendingGets {
    /// The newest reads whose callers still wait, as many as one statement takes. Older ones
    /// wait for less load, and no longer than their callers.
    fn newest(&mut self) -> Vec<PendingGet> {
        self.reads.retain(|get| !get.answer.is_closed());
        let from = self.reads.len().saturating_sub(MAX_GETS_PER_STATEMENT);
        self.reads.split_off(from)
    }
}

impl GetBatcher {
    pub fn new(readers: Arc<Readers>) -> Arc<Self> {
        Arc::new(Self { readers, waiting: Mutex::default() })
    }

    pub async fn get(self: &Arc<Self>, key: &UserKey, deadline: Deadline) -> GetAnswer {
        let reading = async {
            let (answer, answered) = oneshot::channel();
            let counted = self.readers.metrics.queued();
            if self.enqueue(PendingGet { key: key.clone(), answer, counted }) {
                // On the caller's thread, where most of the answers are waited for.
                tokio::spawn(Worker { batcher: Arc::clone(self), counted: true }.work());
            }
            answered.await.unwrap_or(Err(CLOSED))
        };
        self.readers.in_time(deadline, reading).await
    }

    /// Whether there is to be one more taker, who is counted from now on.
    fn enqueue(&self, gets: PendingGet) -> bool {
        let mut waiting = self.waiting();
        waiting.reads.push(gets);
        let more = waiting.workers < MAX_STATEMENTS;
        waiting.workers += usize::from(more);
        more
    }

    fn waiting(&self) -> MutexGuard<'_, PendingGets> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that takes what waits, until nothing does.
struct Worker {
    batcher: Arc<GetBatcher>,
    counted: bool,
}

impl Worker {
    async fn work(mut self) {
        while let Some(gets) = self.take() {
            read(&self.batcher.readers, gets).await;
        }
    }

    /// **Invariant:** the check and the count share one lock. A read queued between them
    /// would have no worker.
    fn take(&mut self) -> Option<Vec<PendingGet>> {
        let mut waiting = self.batcher.waiting();
        let gets = waiting.newest();
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
        // Its runtime ended it.
        if self.counted {
            self.batcher.waiting().workers -= 1;
        }
    }
}

/// Reads for all of them in one statement.
async fn read(readers: &Readers, mut gets: Vec<PendingGet>) {
    let (mut ids, mut emails) = (Vec::new(), Vec::new());
    for PendingGet { key, counted, .. } in &mut gets {
        *counted = readers.metrics.in_flight();
        match key {
            UserKey::Id(id) => ids.push(id.as_str()),
            UserKey::Email(email) => emails.push(email.as_str()),
        }
    }
    let params: [Param; 2] = [&ids, &emails];
    let found = readers.in_time(Deadline::NONE, readers.ask(Sql::Users, &params)).await;
    let found = found.and_then(|rows| rows::users(&rows));
    let found = found.map(|users| users.into_iter().map(Arc::new).collect::<Vec<_>>());
    let users = || found.iter().flatten();
    let by_id: HashMap<_, _> = users().map(|user| (&user.id, user)).collect();
    let by_email: HashMap<_, _> = users().map(|user| (&user.fields.email, user)).collect();
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

    #[test]
    fn where_more_reads_wait_than_a_statement_takes_the_newest_are_sent_first() {
        let metrics = ReadMetrics::new();
        let (mut waiting, mut ids, mut callers) = (PendingGets::default(), Vec::new(), Vec::new());
        for _ in 0..3 * MAX_GETS_PER_STATEMENT {
            let (answer, answered) = oneshot::channel();
            let id = UserId::generate();
            ids.push(id.clone());
            callers.push(answered);
            waiting.reads.push(PendingGet { key: UserKey::Id(id), answer, counted: metrics.queued() });
        }
        let sent = |gets: Vec<PendingGet>| {
            let ids = gets.into_iter().map(|get| match get.key {
                UserKey::Id(id) => id,
                UserKey::Email(_) => panic!("no read is by an address"),
            });
            ids.collect::<Vec<_>>()
        };
        assert_eq!(sent(waiting.newest()), ids[2 * MAX_GETS_PER_STATEMENT..]);
        // The oldest caller of those that are left has given up.
        callers.remove(0);
        assert_eq!(sent(waiting.newest()), ids[MAX_GETS_PER_STATEMENT..2 * MAX_GETS_PER_STATEMENT]);
        assert_eq!(sent(waiting.newest()), ids[1..MAX_GETS_PER_STATEMENT]);
        assert!(waiting.newest().is_empty());
    }
}
