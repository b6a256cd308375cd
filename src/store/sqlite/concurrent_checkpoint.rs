//! A checkpoint that another thread makes while the writer commits.
//!
//! `SQLite` lets one connection move pages into the file while another one appends to the
//! log. A sync of the log that fails here fails in the writer's next commit too: Linux
//! reports it to each descriptor that is open (since 4.13).

use std::{
    mem,
    panic::resume_unwind,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use rusqlite::Connection;

use super::connections::{self, Log};

/// The connection for such checkpoints, and the thread of one that has begun.
pub(super) struct ConcurrentCheckpoint {
    connection: Arc<Mutex<Connection>>,
    thread: Option<JoinHandle<rusqlite::Result<Log>>>,
}

impl ConcurrentCheckpoint {
    pub fn new(connection: Connection) -> Self {
        Self { connection: Arc::new(Mutex::new(connection)), thread: None }
    }

    /// One that is under way until the thread ends.
    #[cfg(test)]
    pub fn running(connection: Connection, thread: JoinHandle<rusqlite::Result<Log>>) -> Self {
        Self { thread: Some(thread), ..Self::new(connection) }
    }

    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Begins one. Where no thread can be had, nothing happens until the next try.
    pub fn begin(&mut self) {
        let connection = Arc::clone(&self.connection);
        let work = move || {
            let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            connections::checkpoint(&connection, "PASSIVE")
        };
        self.thread = thread::Builder::new().name("checkpoint".into()).spawn(work).ok();
    }

    /// Waits for the one that was begun last, and tells once what became of it.
    pub fn join(&mut self) -> rusqlite::Result<()> {
        match mem::take(&mut self.thread) {
            Some(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)).map(drop),
            None => Ok(()),
        }
    }
}
