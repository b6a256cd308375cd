//! A line in the log for a call that has ended.
//!
//! Neither success nor failure can flood the log: past a number of lines in one
//! second calls are only counted, and the next line says how many there were. What
//! callers do wrong, however often, takes no line from what the service does wrong.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;
use tonic::Code;
use tracing::field::display;

use super::trace::Trace;
use crate::rpc::{codes, methods::Method};

/// How many lines one second may have of calls that went well, as many again of
/// calls that their callers got wrong, and of calls that the service failed.
const MAX_LINES_PER_SECOND: u64 = 100;

/// Where ended calls are logged.
#[derive(Debug)]
pub struct CallLog {
    started: Instant,
    good: Allowance,
    refused: Allowance,
    failed: Allowance,
}

impl CallLog {
    pub fn new() -> Self {
        let [good, refused, failed] = std::array::from_fn(|_| Allowance::default());
        Self { started: Instant::now(), good, refused, failed }
    }

    /// Logs one call, which ends `now`. Names of methods come from a fixed table and
    /// nothing else is of the caller's making, so no line holds personal data.
    pub fn call(
        &self,
        method: Option<&'static Method>,
        code: Code,
        took: Duration,
        now: Instant,
        trace: Option<&Trace>,
    ) {
        let fault = codes::is_server_fault(code);
        // Probes come every second and say nothing when all is well.
        if !fault && method.is_some_and(|method| method.api.is_infrastructure()) {
            return;
        }
        let allowance = match code {
            Code::Ok => &self.good,
            _ if fault => &self.failed,
            _ => &self.refused,
        };
        let Some(unlogged) = allowance.take((now - self.started).as_secs()) else { return };
        let unlogged = (unlogged > 0).then_some(unlogged);
        let method = method.map_or("_OTHER", Method::full_name);
        let (trace_id, span_id) =
            (trace.map(|trace| display(trace.id)), trace.and_then(|trace| trace.span_id).map(display));
        let duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    target: "user_service::call",
                    method,
                    code = codes::otel_name(code),
                    duration_us,
                    trace_id,
                    span_id,
                    unlogged,
                    "call"
                )
            };
        }
        match code {
            Code::Unknown | Code::Internal | Code::DataLoss => log!(error),
            _ if fault => log!(warn),
            _ => log!(info),
        }
    }
}

impl Default for CallLog {
    fn default() -> Self {
        Self::new()
    }
}

/// A budget of lines in each second; further ones are counted.
#[derive(Debug, Default)]
struct Allowance {
    second: AtomicU64,
    taken: AtomicU64,
    refused: AtomicU64,
}

impl Allowance {
    /// Whether there is one left in this second, and how many were refused since
    /// the last time there was. Threads may race at the turn of a second: a line
    /// more or less does no harm.
    fn take(&self, second: u64) -> Option<u64> {
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.taken.store(0, Ordering::Relaxed);
        }
        if self.taken.fetch_add(1, Ordering::Relaxed) < MAX_LINES_PER_SECOND {
            return Some(self.refused.swap(0, Ordering::Relaxed));
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_not_logged() {
        let allowance = Allowance::default();
        let taken = (0..MAX_LINES_PER_SECOND + 7).filter(|_| allowance.take(1) == Some(0)).count();
        assert_eq!(taken as u64, MAX_LINES_PER_SECOND);
        assert_eq!(allowance.take(2), Some(7), "the next second says how many were not logged");
        assert_eq!(allowance.take(2), Some(0));
    }
}
