//! The audit line of a call: who did what to which user, and how it ended.
//!
//! **Invariant:** a line holds ids and never a name or an address. Every write that was
//! let in has a line, and of denials at most [`MAX_DENIALS_PER_SECOND`] have one, because any
//! peer can cause them.

use std::{
    sync::{LazyLock, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use opentelemetry::TraceId;
use tonic::Code;

use super::{codes, methods::Method};
use crate::{
    config::AUDIT_TARGET,
    domain::{Caller, UserId},
    util::log_throttle::LogThrottle,
};

/// Lines of denials in one second; further ones are counted in the next line.
const MAX_DENIALS_PER_SECOND: u64 = 100;

static DENIALS: LazyLock<LogThrottle> =
    LazyLock::new(|| LogThrottle::new(MAX_DENIALS_PER_SECOND, Duration::from_secs(1)));

/// The fields of one call's line.
#[derive(Debug)]
pub struct AuditRecord {
    method: Option<&'static Method>,
    trace: Option<TraceId>,
    caller: OnceLock<Caller>,
    /// Why the call was denied.
    denial: OnceLock<&'static str>,
    /// The user that it is about; the last one that was named.
    user: Mutex<Option<UserId>>,
}

impl AuditRecord {
    pub fn new(method: Option<&'static Method>, trace: Option<TraceId>) -> Self {
        let (caller, denial) = (OnceLock::new(), OnceLock::new());
        Self { method, trace, caller, denial, user: Mutex::default() }
    }

    pub fn set_caller(&self, caller: &Caller) {
        let _ = self.caller.set(caller.clone());
    }

    pub fn set_user(&self, id: &UserId) {
        *self.user.lock().unwrap_or_else(PoisonError::into_inner) = Some(id.clone());
    }

    /// The call is denied for this reason.
    pub fn deny(&self, reason: &'static str) {
        let _ = self.denial.set(reason);
    }

    /// The line of one user of a stream of writes.
    pub fn item(&self, user: Option<&UserId>, code: Code) {
        self.write(user, code, None);
    }

    /// The line of the call, where it has one.
    pub fn end(&self, code: Code) {
        let mut unlogged = None;
        if self.denial.get().is_some() {
            let Some(admitted) = DENIALS.admit(Instant::now()) else { return };
            unlogged = admitted.unlogged;
        } else if !self.method.is_some_and(|method| method.writes) {
            return;
        }
        let user = self.user.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.write(user.as_ref(), code, unlogged);
    }

    fn write(&self, user: Option<&UserId>, code: Code, unlogged: Option<u64>) {
        let caller = self.caller.get().map_or("", Caller::name);
        tracing::info!(
            target: AUDIT_TARGET,
            caller = if caller.is_empty() { "anonymous" } else { caller },
            method = self.method.map_or("_OTHER", Method::full_name),
            user = user.map(UserId::as_str),
            code = codes::otel_name(code),
            denied = self.denial.get().copied(),
            trace_id = self.trace.map(display),
            unlogged,
            "audit"
        );
    }
}
