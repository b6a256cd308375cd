//! A line in the log for a call that has ended.
//!
//! Neither success nor failure can flood the log: past a number of lines in one
//! second calls are only counted, and the next line says how many there were. What
//! callers do wrong, however often, takes no line from what the service does wrong.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Code;
use tracing::field::display;

use super::trace::Trace;
use crate::{
    rpc::{codes, methods::Method, protocol::Protocol},
    util::log_throttle::{Admitted, LogThrottle},
};

/// How many lines one second may have of calls that went well, as many again of
/// calls that their callers got wrong, and of calls that the service failed.
const MAX_LINES_PER_SECOND: u64 = 100;

/// Where ended calls are logged.
#[derive(Debug)]
pub struct CallLog {
    good: LogThrottle,
    refused: LogThrottle,
    failed: LogThrottle,
}

impl CallLog {
    pub fn new() -> Self {
        let second = Duration::from_secs(1);
        let [good, refused, failed] = std::array::from_fn(|_| LogThrottle::new(MAX_LINES_PER_SECOND, second));
        Self { good, refused, failed }
    }

    /// Logs one call, which ends `now`. Names of methods come from a fixed table and
    /// nothing else is of the caller's making, so no line holds personal data.
    pub fn call(
        &self,
        method: Option<&'static Method>,
        protocol: Protocol,
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
        let throttle = match code {
            Code::Ok => &self.good,
            _ if fault => &self.failed,
            _ => &self.refused,
        };
        let Some(Admitted { unlogged }) = throttle.admit(now.into_std()) else { return };
        let method = method.map_or("_OTHER", Method::full_name);
        let (trace_id, span_id) =
            (trace.map(|trace| display(trace.id)), trace.and_then(|trace| trace.span_id).map(display));
        let duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    target: "user_service::call",
                    method,
                    protocol = protocol.name(),
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
