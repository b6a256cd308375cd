//! The epoch of commits, by which readers know whether their snapshot is current.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// A sequence counter: odd while a commit runs, even between commits. The new data becomes
/// visible in the file at some moment while it is odd. Checkpoints count too.
#[derive(Default)]
pub(super) struct CommitEpoch(AtomicU64);

/// The time between two commits. A read within it stays current until the next commit
/// begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StableEpoch(u64);

impl CommitEpoch {
    /// `None` while a commit is under way.
    pub fn stable(&self) -> Option<StableEpoch> {
        let count = self.0.load(SeqCst);
        count.is_multiple_of(2).then_some(StableEpoch(count))
    }

    pub fn begin(&self) {
        self.0.fetch_add(1, SeqCst);
    }

    pub fn end(&self) {
        self.0.fetch_add(1, SeqCst);
    }
}
