//! Whom a batch of writes waits for.
//!
//! Callers ask again as soon as they are answered. A batch that begins at once holds
//! only those who came while the last one was committed, and from then on the two
//! halves take turns, each waiting for the other's commit. So it waits a moment for
//! those who were just answered.

use std::time::Instant;

/// The most writes in one commit: bounds how long the first of them waits.
pub(super) const MAX_BATCH: usize = 256;

/// A batch waits for no longer than this part of what the last one took.
const PART: u32 = 4;

/// Who was there when a batch was done: answered by it, or waiting.
#[derive(Clone, Copy)]
pub(super) struct Crowd {
    /// How many the next batch waits for.
    pub size: usize,
    /// And how long.
    pub until: Instant,
}

impl Crowd {
    pub fn nobody() -> Self {
        Self { size: 0, until: Instant::now() }
    }

    /// Those answered by a batch that is done now, and those who waited meanwhile.
    pub fn after(answered: usize, waiting: usize, began: Instant) -> Self {
        let now = Instant::now();
        Self { size: (answered + waiting).min(MAX_BATCH), until: now + now.duration_since(began) / PART }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_were_there_are_waited_for_and_nobody_else() {
        let began = Instant::now();
        let crowd = Crowd::after(2, 1, began);
        assert_eq!(crowd.size, 3);
        assert!(crowd.until >= began && crowd.until <= Instant::now() + began.elapsed());
        assert_eq!(Crowd::nobody().size, 0);
        assert_eq!(Crowd::after(MAX_BATCH, MAX_BATCH, began).size, MAX_BATCH, "no more can come in");
    }
}
