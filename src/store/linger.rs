//! How long a writer lingers before a commit, and for how many writes.
//!
//! Callers that were just answered usually send again immediately. Without a wait, the
//! next batch holds only the callers that queued during the commit. The two groups then
//! alternate, each waiting for the other's commit. A short wait joins them.

use std::time::{Duration, Instant};

/// A batch waits for no longer than this part of what the last one took.
const DELAY_DIVISOR: u32 = 4;

/// And never longer than this: callers who ask again do so within their round trip,
/// however slow the disk is.
const MAX_WAIT: Duration = Duration::from_millis(10);

/// The target of the next batch: the writes that the last one answered, and those queued.
#[derive(Clone, Copy)]
pub(super) struct Linger {
    /// How many writes the next batch waits for.
    pub target: usize,
    /// And how long.
    pub until: Instant,
}

impl Linger {
    pub fn none() -> Self {
        Self { target: 0, until: Instant::now() }
    }

    /// After a batch that has just ended: its callers and the queued writes, as far as
    /// they fit into one batch.
    pub fn after(answered: usize, waiting: usize, began: Instant, batch_limit: usize) -> Self {
        let now = Instant::now();
        let wait = (now.duration_since(began) / DELAY_DIVISOR).min(MAX_WAIT);
        Self { target: (answered + waiting).min(batch_limit), until: now + wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_were_there_are_waited_for_and_nobody_else() {
        let began = Instant::now();
        let linger = Linger::after(2, 1, began, 8);
        assert_eq!(linger.target, 3);
        assert!(linger.until >= began && linger.until <= Instant::now() + began.elapsed());
        assert_eq!(Linger::none().target, 0);
        assert_eq!(Linger::after(8, 8, began, 8).target, 8, "no more can come in");
        let long_ago = began.checked_sub(Duration::from_secs(1)).unwrap();
        assert!(Linger::after(2, 1, long_ago, 8).until <= Instant::now() + MAX_WAIT);
    }
}
