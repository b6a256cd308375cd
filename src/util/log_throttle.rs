//! Bounds how many lines of one kind the log gets.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Lets a number of lines through in each interval, and counts the others.
#[derive(Debug)]
pub struct LogThrottle {
    max_lines: u64,
    interval_ns: u64,
    created: Instant,
    /// When the current interval began, in nanoseconds since `created`.
    began_ns: AtomicU64,
    lines: AtomicU64,
    unlogged: AtomicU64,
}

/// A line that may be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// How many lines were not logged since the last one that was; `None` for none.
    pub unlogged: Option<u64>,
}

impl LogThrottle {
    pub fn new(max_lines: u64, interval: Duration) -> Self {
        let [began_ns, lines, unlogged] = std::array::from_fn(|_| AtomicU64::new(0));
        Self {
            max_lines,
            interval_ns: nanoseconds(interval),
            created: Instant::now(),
            began_ns,
            lines,
            unlogged,
        }
    }

    /// Whether a line may be logged now. Threads may race at the end of an interval: a line
    /// more or less does no harm.
    pub fn admit(&self, now: Instant) -> Option<Admitted> {
        let now_ns = nanoseconds(now.saturating_duration_since(self.created));
        if now_ns.saturating_sub(self.began_ns.load(Relaxed)) >= self.interval_ns {
            self.began_ns.store(now_ns, Relaxed);
            self.lines.store(0, Relaxed);
        }
        if self.lines.fetch_add(1, Relaxed) >= self.max_lines {
            self.unlogged.fetch_add(1, Relaxed);
            return None;
        }
        let unlogged = self.unlogged.swap(0, Relaxed);
        Some(Admitted { unlogged: (unlogged > 0).then_some(unlogged) })
    }
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    #[expect(clippy::unnecessary_wraps, reason = "what admit returns")]
    fn after(unlogged: Option<u64>) -> Option<Admitted> {
        Some(Admitted { unlogged })
    }

    #[test]
    fn a_flood_is_counted_and_not_logged() {
        let throttle = LogThrottle::new(100, INTERVAL);
        let start = throttle.created;
        let logged = (0..107).filter(|_| throttle.admit(start) == after(None)).count();
        assert_eq!(logged, 100);
        assert_eq!(throttle.admit(start + INTERVAL), after(Some(7)), "the next line has the count");
        assert_eq!(throttle.admit(start + INTERVAL), after(None));
    }

    #[test]
    fn one_line_an_interval_is_never_two_close_together() {
        let throttle = LogThrottle::new(1, INTERVAL);
        let start = throttle.created + INTERVAL * 3 / 2;
        assert_eq!(throttle.admit(start), after(None));
        assert_eq!(throttle.admit(start + INTERVAL * 9 / 10), None);
        assert_eq!(throttle.admit(start + INTERVAL), after(Some(1)));
    }
}
