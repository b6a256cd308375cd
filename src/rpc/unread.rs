//! Answers that wait for their callers to read them, in bytes.
//!
//! Calls are bounded in number, and small answers are bounded with them. Large ones are
//! counted until the connection has taken them, and there may be so many bytes of them
//! on one connection and in the process. A connection that has many and takes none is
//! ended when the process comes near its limit.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use tonic::Status;

use crate::rpc::status;

/// The least bytes of an answer, or of a part of one, that is counted.
pub const COUNTED_BYTES: usize = 16 * 1_024;

/// The most bytes that wait on one connection.
const MAX_CONNECTION_BYTES: usize = 8 * 1_024 * 1_024;

/// The most bytes that wait in the process.
const MAX_PROCESS_BYTES: usize = 48 * 1_024 * 1_024;

/// The least bytes that wait on a connection that may be ended for them.
const MANY_BYTES: usize = 1_024 * 1_024;

/// What waits on one connection.
#[derive(Debug, Default)]
pub struct Unread {
    connection: AtomicUsize,
    process: Arc<AtomicUsize>,
    /// Bytes of it that were taken.
    taken: AtomicU64,
}

impl Unread {
    /// `process` counts the bytes of all connections.
    pub fn of(process: Arc<AtomicUsize>) -> Self {
        Self { process, ..Self::default() }
    }

    /// Whether there is room for another answer of this length.
    ///
    /// # Errors
    /// What the call is answered with instead.
    pub fn admit(&self, len: usize) -> Result<(), Status> {
        if len < COUNTED_BYTES {
            return Ok(());
        }
        if self.connection.load(Relaxed) + len > MAX_CONNECTION_BYTES.max(len) {
            return Err(status::answers_unread());
        }
        if self.process.load(Relaxed) + len > MAX_PROCESS_BYTES.max(len) {
            return Err(status::overloaded());
        }
        Ok(())
    }

    pub fn add(&self, len: usize) {
        self.connection.fetch_add(len, Relaxed);
        self.process.fetch_add(len, Relaxed);
    }

    pub fn remove(&self, len: usize) {
        self.connection.fetch_sub(len, Relaxed);
        self.process.fetch_sub(len, Relaxed);
    }

    /// The connection has taken so many bytes.
    pub fn take(&self, bytes: usize) {
        self.taken.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Relaxed);
    }

    /// Bytes that the connection has taken; `None` where little waits.
    pub fn taken(&self) -> Option<u64> {
        (self.connection.load(Relaxed) >= MANY_BYTES).then(|| self.taken.load(Relaxed))
    }

    /// Whether the process comes near its limit.
    pub fn is_pressing(&self) -> bool {
        self.process.load(Relaxed) > MAX_PROCESS_BYTES / 2
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn code(unread: &Unread, len: usize) -> Option<Code> {
        unread.admit(len).err().map(|status| status.code())
    }

    #[test]
    fn a_connection_and_the_process_have_a_limit_each() {
        let process = Arc::new(AtomicUsize::new(0));
        let connections: Vec<_> = (0..7).map(|_| Unread::of(Arc::clone(&process))).collect();
        for connection in &connections[..6] {
            assert_eq!(code(connection, MAX_CONNECTION_BYTES), None);
            connection.add(MAX_CONNECTION_BYTES);
            assert_eq!(code(connection, COUNTED_BYTES), Some(Code::ResourceExhausted));
            assert_eq!(code(connection, COUNTED_BYTES - 1), None, "small ones are not counted");
        }
        assert_eq!(code(&connections[6], COUNTED_BYTES), Some(Code::Unavailable));
        assert!(connections[6].is_pressing());
        connections[0].remove(MAX_CONNECTION_BYTES);
        assert_eq!(code(&connections[6], COUNTED_BYTES), None);
    }

    #[test]
    fn an_answer_that_is_larger_than_all_goes_alone() {
        assert_eq!(code(&Unread::default(), 2 * MAX_PROCESS_BYTES), None);
    }
}
