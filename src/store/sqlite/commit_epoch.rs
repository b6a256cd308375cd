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

    /// Begins a commit, which ends when the guard is dropped.
    pub fn begin(&self) -> UnstableEpoch<'_> {
        self.0.fetch_add(1, SeqCst);
        UnstableEpoch(self)
    }
}

/// A commit that is under way. **Invariant:** it ends also where the writer panics; without
/// that, the count would be even during the next commit.
#[must_use]
pub(super) struct UnstableEpoch<'a>(&'a CommitEpoch);

impl Drop for UnstableEpoch<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, SeqCst);
    }
}
