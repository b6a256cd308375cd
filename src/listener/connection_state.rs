//! What a connection and its serving thread carry: their calls in flight, and what the
//! connection is at.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::metrics::{ConnectionPhase, Protocol};
use crate::rpc::{goaway::ConnectionHandle, holdings::Holdings, source::Source};

/// What one serving thread carries.
#[derive(Debug, Default)]
pub struct ThreadLoad {
    thread: usize,
    pub connections: AtomicUsize,
    pub calls: AtomicUsize,
    /// Complete answers that connections which are about to go have not delivered.
    pub undelivered: Arc<AtomicUsize>,
}

impl ThreadLoad {
    /// Of the thread of this number.
    pub fn of(thread: usize) -> Self {
        Self { thread, ..Self::default() }
    }
}

/// What is known of one connection, its calls in flight among it.
#[derive(Debug)]
pub struct ConnectionState {
    load: Arc<ThreadLoad>,
    pub opened_at: Instant,
    /// A [`ConnectionPhase`].
    state: AtomicU8,
    /// The index of a [`Protocol`], and one more; 0 while it is not known.
    protocol: AtomicU8,
    calls: AtomicUsize,
    /// How many of these have a complete answer, counted once the connection is about to go.
    unsent: AtomicUsize,
    /// Tells calls that the connection is to go away.
    pub handle: ConnectionHandle,
    /// When the last call ended, in milliseconds since `opened_at`.
    idle_since_ms: AtomicU64,
}

impl ConnectionState {
    pub fn new(load: Arc<ThreadLoad>, source: Option<Source>, opened_at: Instant, held: Holdings) -> Self {
        static CONNECTIONS: AtomicU64 = AtomicU64::new(1);
        let undelivered = Arc::clone(&load.undelivered);
        Self {
            load,
            opened_at,
            state: AtomicU8::new(ConnectionPhase::Handshake as u8),
            protocol: AtomicU8::new(0),
            calls: AtomicUsize::new(0),
            unsent: AtomicUsize::new(0),
            handle: ConnectionHandle::new(CONNECTIONS.fetch_add(1, Relaxed), source, undelivered, held),
            idle_since_ms: AtomicU64::new(0),
        }
    }

    /// The number of the connection, which no other one of this process has.
    pub fn number(&self) -> u64 {
        self.handle.id
    }

    pub fn thread(&self) -> usize {
        self.load.thread
    }

    pub fn state(&self) -> ConnectionPhase {
        ConnectionPhase::ALL[usize::from(self.state.load(Relaxed)) % ConnectionPhase::ALL.len()]
    }

    pub fn enter(&self, state: ConnectionPhase) {
        self.state.store(state as u8, Relaxed);
    }

    pub fn protocol(&self) -> Option<Protocol> {
        Protocol::ALL.get(usize::from(self.protocol.load(Relaxed)).checked_sub(1)?).copied()
    }

    pub fn set_protocol(&self, protocol: Protocol) {
        self.protocol.store(protocol as u8 + 1, Relaxed);
    }

    /// A call begins.
    pub fn begin_call(&self) {
        self.calls.fetch_add(1, Relaxed);
        self.load.calls.fetch_add(1, Relaxed);
    }

    /// The answer to a call is complete, and the connection answers for its delivery.
    pub fn hand_over(&self) {
        self.load.calls.fetch_sub(1, Relaxed);
        self.unsent.fetch_add(1, Relaxed);
    }

    /// A call ends. `handed_over` is whether [`Self::hand_over`] was told of it.
    pub fn end_call(&self, handed_over: bool) {
        if handed_over {
            self.unsent.fetch_sub(1, Relaxed);
        } else {
            self.load.calls.fetch_sub(1, Relaxed);
        }
        if self.calls.fetch_sub(1, Relaxed) == 1 {
            let since = u64::try_from(self.opened_at.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.idle_since_ms.store(since.max(1), Relaxed);
        }
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Relaxed)
    }

    /// How many calls have an answer that is complete and not sent.
    pub fn unsent(&self) -> usize {
        self.unsent.load(Relaxed)
    }

    /// Whether any call has ended here.
    pub fn has_served(&self) -> bool {
        self.idle_since_ms.load(Relaxed) > 0
    }

    /// When the connection last had a call; `None` while it has one.
    pub fn idle_since(&self) -> Option<Instant> {
        let since = Duration::from_millis(self.idle_since_ms.load(Relaxed));
        (self.calls() == 0).then(|| self.opened_at + since)
    }
}
