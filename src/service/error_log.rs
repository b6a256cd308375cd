//! Logs why the store failed or refused a write, which no caller gets to see.
//!
//! A broken store fails every call: past one line in a second faults are only
//! counted, and the next line says how many there were.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use crate::{
    domain::Error,
    util::{
        error_chain::ErrorChain,
        log_throttle::{Admitted, LogThrottle},
    },
};

const LOG_INTERVAL: Duration = Duration::from_secs(1);

static FAULTS: LazyLock<LogThrottle> = LazyLock::new(|| LogThrottle::new(1, LOG_INTERVAL));
static REFUSALS: LazyLock<LogThrottle> = LazyLock::new(|| LogThrottle::new(1, LOG_INTERVAL));

/// Logs a fault of the store, and what a rule of the store's owner refused; other errors
/// are callers' and not logged here.
pub fn log(error: &Error) {
    let throttle = match error {
        Error::Internal(_) | Error::Unavailable(_) | Error::OutcomeUnknown => &FAULTS,
        Error::RefusedByStore(_) => &REFUSALS,
        _ => return,
    };
    let Some(Admitted { unlogged }) = throttle.admit(Instant::now()) else { return };
    if let Error::RefusedByStore(rule) = error {
        tracing::warn!(rule, unlogged, "a rule of the database refused a write");
    } else {
        tracing::error!(error = %ErrorChain(error), unlogged, "the store failed a call");
    }
}
