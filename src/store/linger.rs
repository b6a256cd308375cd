//! Whom a batch of writes waits for.
//!
//! Callers ask again as soon as they are answered. A batch that begins at once holds
//! only those who came while the last one was committed, and from then on the two
//! halves take turns, each waiting for the other's commit. So it waits a moment for
//! those who were just answered.

use std::time::{Duration, Instant};

/// A batch waits for no longer than this part of what the last one took.
const DELAY_DIVISOR: u32 = 4;

/// And never longer than this: callers who ask again do so within their round trip,
/// however slow the disk is.
const MAX_WAIT: Duration = Duration::from_millis(10);

/// Who was there when a batch was done: answered by it, or waiting.
#[derive(Clone, Copy)]
pub(super) struct Linger {
    /// How many the next batch waits for.
    pub target: usize,
    /// And how long.
    pub until: Instant,
}

impl Linger {
    pub fn none() -> Self {
        Self { target: 0, until: Instant::now() }
    }

    /// Those answered by a batch that is done now, and those who waited meanwhile, as far
    /// as they fit into one batch.
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
