//! Whom a batch of writes waits for.
//!
//! Callers ask again as soon as they are answered. A batch that begins at once holds
//! only those who came while the last one was committed, and from then on the two
//! halves take turns, each waiting for the other's commit. So it waits a moment for
//! those who were just answered.

use std::time::Instant;

use super::queue::MAX_BATCH_WRITES;

/// A batch waits for no longer than this part of what the last one took.
const DELAY_DIVISOR: u32 = 4;

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

    /// Those answered by a batch that is done now, and those who waited meanwhile.
    pub fn after(answered: usize, waiting: usize, began: Instant) -> Self {
        let now = Instant::now();
        Self {
            target: (answered + waiting).min(MAX_BATCH_WRITES),
            until: now + now.duration_since(began) / DELAY_DIVISOR,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_were_there_are_waited_for_and_nobody_else() {
        let began = Instant::now();
        let linger = Linger::after(2, 1, began);
        assert_eq!(linger.target, 3);
        assert!(linger.until >= began && linger.until <= Instant::now() + began.elapsed());
        assert_eq!(Linger::none().target, 0);
        assert_eq!(
            Linger::after(MAX_BATCH_WRITES, MAX_BATCH_WRITES, began).target,
            MAX_BATCH_WRITES,
            "no more can come in"
        );
    }
}
