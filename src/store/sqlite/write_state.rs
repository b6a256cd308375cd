//! Whether writes are let in.

use std::sync::atomic::{AtomicU8, Ordering};

use super::readers::REPLACED;
use crate::{domain::Error, store::heartbeat::WriteHeartbeat};

/// What becomes of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteState {
    Writable = 0,
    /// Another program holds the write lock: each write waits for it, and may fail.
    Locked = 1,
    /// The disk is full: off until there is some room.
    DiskFull = 2,
    /// A sync or the disk failed: off until a restart. What the file system holds
    /// of the last writes cannot be known, and asking it again may be answered
    /// with a lie.
    Failed = 3,
    /// The file or its log was removed, or another one has its name: off until a restart. A write
    /// would be gone with the process.
    Replaced = 4,
}

/// Lets writes in or turns them away, and says so once when that changes.
pub(super) struct SharedWriteState {
    state: AtomicU8,
    heartbeat: WriteHeartbeat,
}

impl SharedWriteState {
    pub fn new() -> Self {
        Self { state: AtomicU8::new(WriteState::Writable as u8), heartbeat: WriteHeartbeat::new() }
    }

    pub fn get(&self) -> WriteState {
        match self.state.load(Ordering::Relaxed) {
            0 => WriteState::Writable,
            1 => WriteState::Locked,
            2 => WriteState::DiskFull,
            4 => WriteState::Replaced,
            _ => WriteState::Failed,
        }
    }

    /// Why writes are turned away, if they are.
    pub fn refusal(&self) -> Option<Error> {
        match self.get() {
            WriteState::Writable | WriteState::Locked => None,
            WriteState::DiskFull => Some(Error::Unavailable("the disk is full")),
            WriteState::Failed => Some(Error::Unavailable("writes are off since the disk failed")),
            WriteState::Replaced => Some(REPLACED),
        }
    }

    /// Whether a write would work now.
    pub fn takes_writes(&self) -> bool {
        self.refusal().is_none() && self.heartbeat.is_recent()
    }

    /// Whether it was too long ago that a write worked to know whether one would.
    pub fn is_try_due(&self) -> bool {
        self.heartbeat.is_try_due()
    }

    /// A write worked, or would have.
    pub fn wrote(&self) {
        self.heartbeat.beat();
        self.set(WriteState::Writable);
    }

    /// Only the writer calls this, so nothing happens between the two halves.
    pub fn set(&self, state: WriteState) {
        if self.get() == state {
            return;
        }
        self.state.store(state as u8, Ordering::Relaxed);
        match state {
            WriteState::Writable => tracing::info!("the store takes writes again"),
            WriteState::Locked => {
                tracing::warn!(
                    "another program holds the store's file; writes fail until it releases it; reads go on"
                );
            }
            WriteState::DiskFull => {
                tracing::error!("the disk is full: no writes until there is room; reads go on");
            }
            WriteState::Failed => {
                tracing::error!("the disk failed a write: no writes until a restart; reads go on");
            }
            WriteState::Replaced => {
                tracing::error!(
                    "the store's file or its -wal was removed or replaced under the service: no writes until \
                     a restart"
                );
            }
        }
    }
}
