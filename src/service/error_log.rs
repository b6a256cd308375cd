//! Logs why the store failed or refused a write, which no caller gets to see.
//!
//! A broken store fails every call: past one line in a second faults are only
//! counted, and the next line says how many there were.

use std::{
    error::Error as StdError,
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::domain::Error;

const LOG_INTERVAL: Duration = Duration::from_secs(1);

static FAULTS: Throttle = Throttle(Mutex::new((None, 0)));
static REFUSALS: Throttle = Throttle(Mutex::new((None, 0)));

/// Logs a fault of the store, and what a rule of the store's owner refused; other errors
/// are callers' and not logged here.
pub fn log(error: &Error) {
    let throttle = match error {
        Error::Internal(_) | Error::Unavailable(_) | Error::OutcomeUnknown => &FAULTS,
        Error::RefusedByStore(_) => &REFUSALS,
        _ => return,
    };
    let Some(unlogged) = throttle.take(Instant::now()) else { return };
    let unlogged = (unlogged > 0).then_some(unlogged);
    if let Error::RefusedByStore(rule) = error {
        tracing::warn!(rule, unlogged, "a rule of the database refused a write");
    } else {
        tracing::error!(error = %Chain(error), unlogged, "the store failed a call");
    }
}

/// When it last let one through, and how many it has held back since.
struct Throttle(Mutex<(Option<Instant>, u64)>);

impl Throttle {
    /// Whether this one may pass, and how many could not before it.
    fn take(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, held) = &mut *state;
        if last.is_some_and(|last| now.saturating_duration_since(last) < LOG_INTERVAL) {
            *held += 1;
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(held))
    }
}

/// An error with its causes.
struct Chain<'a>(&'a dyn StdError);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_faults_is_counted_and_not_logged() {
        let throttle = Throttle(Mutex::new((None, 0)));
        let start = Instant::now();
        assert_eq!(throttle.take(start), Some(0));
        assert_eq!(throttle.take(start), None);
        assert_eq!(throttle.take(start + LOG_INTERVAL / 2), None);
        assert_eq!(throttle.take(start + LOG_INTERVAL), Some(2));
        assert_eq!(throttle.take(start + LOG_INTERVAL * 2), Some(0));
    }

    #[test]
    fn the_log_has_every_cause() {
        let error = Error::Internal("disk I/O error".into());
        assert_eq!(Chain(&error).to_string(), "internal error: disk I/O error");
    }
}
