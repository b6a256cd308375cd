//! Answers that wait for their callers to read them, in bytes.
//!
//! Calls are bounded in number, and small answers are bounded with them. Large ones are
//! counted until the connection has taken them, and there may be so many bytes of them
//! on one connection, and in the process, where addresses share the limit. A connection that
//! has many and takes none is ended when the process comes near its limit.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use tonic::Status;

use crate::rpc::{byte_budget::ByteBudget, holdings::SourceHoldings, status};

/// The least bytes of an answer, or of a part of one, that is counted.
pub const COUNTED_BYTES: usize = 16 * 1_024;

/// The most bytes that wait on one connection.
const MAX_CONNECTION_BYTES: usize = 8 * 1_024 * 1_024;

/// The bytes that wait in the process.
static PROCESS_BYTES: ByteBudget = ByteBudget::new(48 * 1_024 * 1_024);

/// The least bytes that wait on a connection that may be ended for them.
const MANY_BYTES: usize = 1_024 * 1_024;

/// What waits on one connection.
#[derive(Debug)]
pub struct Unread {
    connection: AtomicUsize,
    address: Arc<SourceHoldings>,
    process: &'static ByteBudget,
    /// Bytes of it that were taken.
    taken: AtomicU64,
}

impl Default for Unread {
    fn default() -> Self {
        Self::of(Arc::default())
    }
}

impl Unread {
    /// On a connection of this address.
    pub fn of(address: Arc<SourceHoldings>) -> Self {
        Self { connection: AtomicUsize::new(0), address, process: &PROCESS_BYTES, taken: AtomicU64::new(0) }
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
        if !self.process.has_room(&self.address.unread_bytes, len) {
            return Err(status::overloaded());
        }
        Ok(())
    }

    pub fn add(&self, len: usize) {
        self.connection.fetch_add(len, Relaxed);
        self.process.add(&self.address.unread_bytes, len);
    }

    pub fn remove(&self, len: usize) {
        self.connection.fetch_sub(len, Relaxed);
        self.process.remove(&self.address.unread_bytes, len);
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
        self.process.is_half_used()
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn code(unread: &Unread, len: usize) -> Option<Code> {
        unread.admit(len).err().map(|status| status.code())
    }

    /// Connections of one address.
    fn connections(process: &'static ByteBudget, count: usize) -> Vec<Unread> {
        let address = Arc::default();
        (0..count).map(|_| Unread { process, ..Unread::of(Arc::clone(&address)) }).collect()
    }

    #[test]
    fn a_connection_and_the_process_have_a_limit_each() {
        static PROCESS: ByteBudget = ByteBudget::new(64 * 1_024 * 1_024);
        let hoarders = connections(&PROCESS, 8);
        for connection in &hoarders[..7] {
            assert_eq!(code(connection, MAX_CONNECTION_BYTES), None);
            connection.add(MAX_CONNECTION_BYTES);
            assert_eq!(code(connection, COUNTED_BYTES), Some(Code::ResourceExhausted));
            assert_eq!(code(connection, COUNTED_BYTES - 1), None, "small ones are not counted");
        }
        assert_eq!(code(&hoarders[7], COUNTED_BYTES), Some(Code::Unavailable));
        let newcomer = &connections(&PROCESS, 1)[0];
        assert!(newcomer.is_pressing());
        assert_eq!(code(newcomer, MAX_CONNECTION_BYTES), None, "the last eighth is for other addresses");
        newcomer.add(MAX_CONNECTION_BYTES);
        hoarders[0].remove(MAX_CONNECTION_BYTES);
        assert_eq!(code(&hoarders[7], COUNTED_BYTES), Some(Code::Unavailable));
        newcomer.remove(MAX_CONNECTION_BYTES);
        assert_eq!(code(&hoarders[7], COUNTED_BYTES), None);
    }

    #[test]
    fn an_answer_that_is_larger_than_all_goes_alone() {
        static PROCESS: ByteBudget = ByteBudget::new(64);
        assert_eq!(code(&connections(&PROCESS, 1)[0], 2 * MAX_CONNECTION_BYTES), None);
    }
}
