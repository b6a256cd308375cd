//! Connections that only read.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::{Connection, ErrorCode};
use tokio::sync::Semaphore;

use super::schema;
use crate::domain::Error;

/// How many big reads run at once, so that they never take all threads.
const BIG_READS: usize = 8;

/// How many connections are kept when nobody uses them.
const IDLE: usize = 16;

pub(super) struct Readers {
    path: PathBuf,
    /// `None` once closed.
    idle: Mutex<Option<Vec<Connection>>>,
    pub big_reads: Arc<Semaphore>,
}

impl Readers {
    pub fn new(path: PathBuf) -> Self {
        Self { path, idle: Mutex::new(Some(Vec::new())), big_reads: Arc::new(Semaphore::new(BIG_READS)) }
    }

    /// Runs `read` on a connection of its own.
    pub fn with<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        let idle =
            self.with_idle(|idle| idle.map(Vec::pop)).ok_or(Error::Unavailable("the store is closed"))?;
        let connection = match idle {
            Some(connection) => connection,
            None => schema::open_reader(&self.path).map_err(failed)?,
        };
        // A connection that failed is not used again.
        let answer = read(&connection).map_err(failed)?;
        self.with_idle(|idle| {
            if let Some(idle) = idle
                && idle.len() < IDLE
            {
                idle.push(connection);
            }
        });
        Ok(answer)
    }

    pub fn close(&self) {
        drop(self.idle.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn with_idle<T>(&self, use_idle: impl FnOnce(Option<&mut Vec<Connection>>) -> T) -> T {
        use_idle(self.idle.lock().unwrap_or_else(PoisonError::into_inner).as_mut())
    }
}

fn failed(error: rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => {
            Error::Unavailable("the disk failed a read")
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Error::Unavailable("another program holds the file")
        }
        _ => Error::Internal(error.into()),
    }
}
