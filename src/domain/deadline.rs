//! Until when an answer is worth having.

use std::time::{Duration, Instant};

/// Until when an answer is worth having. Work that has not begun by then is not
/// begun; work that has begun is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// No deadline.
    pub const NONE: Self = Self(None);

    pub fn at(instant: Instant) -> Self {
        Self(Some(instant))
    }

    pub fn instant(self) -> Option<Instant> {
        self.0
    }

    pub fn is_over(self) -> bool {
        self.remaining().is_some_and(|left| left.is_zero())
    }

    /// The time left: `None` where there is no deadline, zero where it has passed.
    pub fn remaining(self) -> Option<Duration> {
        self.0.map(|at| at.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_runs_out() {
        assert!(!Deadline::NONE.is_over());
        assert!(!Deadline::at(Instant::now() + Duration::from_mins(1)).is_over());
        assert!(Deadline::at(Instant::now()).is_over());
    }
}
