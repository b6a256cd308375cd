//! What readers know of commits.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Counts the commits twice: when one begins, and when it has ended. It is public in
/// the file somewhere between the two, and acknowledged after them. Checkpoints count too.
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
