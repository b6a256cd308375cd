//! Whether writes are let in.

use std::sync::atomic::{AtomicU8, Ordering};

use metrics::Gauge;

use crate::{domain::Error, store::metrics::writable};

/// What becomes of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writes {
    On = 0,
    /// The disk is full: off until a small write succeeds.
    Full = 1,
    /// A sync or the disk failed: off until a restart. What the file system holds
    /// of the last writes cannot be known, and asking it again may be answered
    /// with a lie.
    Broken = 2,
}

/// Lets writes in or turns them away, and says so once when that changes.
pub(super) struct Gate {
    writes: AtomicU8,
    writable: Gauge,
}

impl Gate {
    pub fn new() -> Self {
        let writable = writable();
        writable.set(1.0);
        Self { writes: AtomicU8::new(Writes::On as u8), writable }
    }

    pub fn writes(&self) -> Writes {
        match self.writes.load(Ordering::Relaxed) {
            0 => Writes::On,
            1 => Writes::Full,
            _ => Writes::Broken,
        }
    }

    /// Why writes are turned away, if they are.
    pub fn refusal(&self) -> Option<Error> {
        match self.writes() {
            Writes::On => None,
            Writes::Full => Some(Error::Unavailable("the disk is full")),
            Writes::Broken => Some(Error::Unavailable("writes are off since the disk failed")),
        }
    }

    /// Only the writer calls this, so nothing happens between the two halves.
    pub fn set(&self, writes: Writes) {
        if self.writes() == writes {
            return;
        }
        self.writes.store(writes as u8, Ordering::Relaxed);
        self.writable.set(if writes == Writes::On { 1.0 } else { 0.0 });
        match writes {
            Writes::On => tracing::info!("the store takes writes again"),
            Writes::Full => tracing::error!("the disk is full: no writes until there is room; reads go on"),
            Writes::Broken => {
                tracing::error!("the disk failed a write: no writes until a restart; reads go on");
            }
        }
    }
}
