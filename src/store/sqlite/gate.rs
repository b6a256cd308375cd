//! Whether writes are let in.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::{domain::Error, store::heartbeat::WriteHeartbeat};

/// What becomes of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writes {
    On = 0,
    /// Another program holds the write lock: each write waits for it, and may fail.
    Held = 1,
    /// The disk is full: off until a small write succeeds.
    Full = 2,
    /// A sync or the disk failed: off until a restart. What the file system holds
    /// of the last writes cannot be known, and asking it again may be answered
    /// with a lie.
    Broken = 3,
}

/// Lets writes in or turns them away, and says so once when that changes.
pub(super) struct Gate {
    writes: AtomicU8,
    heartbeat: WriteHeartbeat,
}

impl Gate {
    pub fn new() -> Self {
        Self { writes: AtomicU8::new(Writes::On as u8), heartbeat: WriteHeartbeat::new() }
    }

    pub fn writes(&self) -> Writes {
        match self.writes.load(Ordering::Relaxed) {
            0 => Writes::On,
            1 => Writes::Held,
            2 => Writes::Full,
            _ => Writes::Broken,
        }
    }

    /// Why writes are turned away, if they are.
    pub fn refusal(&self) -> Option<Error> {
        match self.writes() {
            Writes::On | Writes::Held => None,
            Writes::Full => Some(Error::Unavailable("the disk is full")),
            Writes::Broken => Some(Error::Unavailable("writes are off since the disk failed")),
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
        self.set(Writes::On);
    }

    /// Only the writer calls this, so nothing happens between the two halves.
    pub fn set(&self, writes: Writes) {
        if self.writes() == writes {
            return;
        }
        self.writes.store(writes as u8, Ordering::Relaxed);
        match writes {
            Writes::On => tracing::info!("the store takes writes again"),
            Writes::Held => {
                tracing::warn!("another program holds the store's file; writes fail meanwhile; reads go on");
            }
            Writes::Full => tracing::error!("the disk is full: no writes until there is room; reads go on"),
            Writes::Broken => {
                tracing::error!("the disk failed a write: no writes until a restart; reads go on");
            }
        }
    }
}
