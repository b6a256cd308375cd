//! When a store's writer last found that a write is possible.
//!
//! A writer that waits for a lock, a disk or a database cannot report that. So it
//! records each success instead, and a store without a recent one takes no writes.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// How often a writer without other writes tries whether one is possible.
pub(super) const TRY_INTERVAL: Duration = Duration::from_secs(1);

/// How old the last success may be: three tries in a row failed, or one write hangs.
const MAX_AGE: Duration = Duration::from_secs(3);

/// The last success of a writer. Shared by the writer and the probes.
pub(super) struct WriteHeartbeat {
    started_at: Instant,
    /// Milliseconds since `started_at`.
    last_ms: AtomicU64,
}

impl WriteHeartbeat {
    /// A store that was just opened counts as one that can be written.
    pub fn new() -> Self {
        Self { started_at: Instant::now(), last_ms: AtomicU64::new(0) }
    }

    /// A write worked just now.
    pub fn beat(&self) {
        let now = u64::try_from(self.started_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(now, Ordering::Relaxed);
    }

    /// Whether the last success is old enough for a try.
    pub fn is_try_due(&self) -> bool {
        self.age() >= TRY_INTERVAL
    }

    /// Whether writes work.
    pub fn is_recent(&self) -> bool {
        self.age() < MAX_AGE
    }

    fn age(&self) -> Duration {
        let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        self.started_at.elapsed().saturating_sub(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_is_recent_until_it_is_too_old() {
        let old = |age: Duration| WriteHeartbeat {
            started_at: Instant::now().checked_sub(age).unwrap(),
            last_ms: AtomicU64::new(0),
        };
        let fresh = WriteHeartbeat::new();
        assert!(fresh.is_recent() && !fresh.is_try_due());
        let idle = old(TRY_INTERVAL);
        assert!(idle.is_recent() && idle.is_try_due());
        let stuck = old(MAX_AGE);
        assert!(!stuck.is_recent());
        stuck.beat();
        assert!(stuck.is_recent() && !stuck.is_try_due());
    }
}
