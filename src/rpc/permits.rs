//! Limits on calls in flight, and the permits of calls.

use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicUsize, Ordering},
};

use http::{HeaderMap, Response};
use metrics::{Counter, Gauge, counter, gauge};

use crate::rpc::status;

/// A limit on calls in flight, for the whole process.
#[derive(Debug)]
pub struct Limiter {
    limit: usize,
    in_flight: AtomicUsize,
    in_flight_gauge: Gauge,
    shed: Counter,
    /// A second limiter, which each call must pass as well.
    next: Option<Arc<Limiter>>,
}

impl Limiter {
    #[allow(clippy::cast_precision_loss, reason = "a limit of 2^52 calls is no limit")]
    pub fn new(kind: &'static str, limit: usize, next: Option<Arc<Limiter>>) -> Self {
        gauge!("grpc_server_admission_limit", "kind" => kind).set(limit as f64);
        let shed = counter!("grpc_server_admission_shed_total", "kind" => kind);
        shed.increment(0);
        Self {
            limit,
            in_flight: AtomicUsize::new(0),
            in_flight_gauge: gauge!("grpc_server_admission_in_flight", "kind" => kind),
            shed,
            next,
        }
    }

    /// Whether the next call would be turned away; it may be a moment later all the same.
    pub fn is_full(&self) -> bool {
        let is_full = self.in_flight() >= self.limit;
        if is_full {
            self.shed.increment(1);
        }
        is_full || self.next.as_ref().is_some_and(|next| next.is_full())
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// A permit; `None` where none is left.
    pub fn enter(self: &Arc<Self>) -> Option<Permit> {
        self.admit().then(|| Permit(self.clone()))
    }

    fn admit(&self) -> bool {
        // Taken first and given back when it was one too many: two callers can never both have the
        // last place, and a call that is turned away needs no loop.
        if self.in_flight.fetch_add(1, Ordering::Relaxed) >= self.limit {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            self.shed.increment(1);
            return false;
        }
        if self.next.as_ref().is_some_and(|next| !next.admit()) {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        self.in_flight_gauge.increment(1.0);
        true
    }

    fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.in_flight_gauge.decrement(1.0);
        if let Some(next) = &self.next {
            next.leave();
        }
    }
}

/// The right of one call to be in flight.
#[derive(Debug)]
pub struct Permit(Arc<Limiter>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// The most bytes of unary requests that are kept while the rest of them is on its way,
/// for the whole process. Requests in one frame need none of it.
const MAX_PARTIAL_BYTES: usize = 32 * 1_024 * 1_024;

static PARTIAL_BYTES: AtomicUsize = AtomicUsize::new(0);

/// The bytes of one request of which the rest is on its way.
#[derive(Debug)]
pub struct PartialBytes {
    bytes: usize,
    all: &'static AtomicUsize,
}

impl Default for PartialBytes {
    fn default() -> Self {
        Self { bytes: 0, all: &PARTIAL_BYTES }
    }
}

impl PartialBytes {
    /// Whether the request may be kept, of this length by now.
    pub fn keep(&mut self, len: usize) -> bool {
        let more = len.saturating_sub(self.bytes);
        if self.all.fetch_add(more, Ordering::Relaxed) + more > MAX_PARTIAL_BYTES {
            self.all.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        self.bytes += more;
        true
    }
}

impl Drop for PartialBytes {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.all.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

/// What a call that is turned away is told. Made once, for it is sent when there is
/// least time.
static TURNED_AWAY: LazyLock<HeaderMap> =
    LazyLock::new(|| status::overloaded().into_http::<()>().into_parts().0.headers);

/// The answer to a call that is turned away.
pub fn turned_away<R: Default>() -> Response<R> {
    let mut response = Response::new(R::default());
    response.headers_mut().clone_from(&TURNED_AWAY);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_on_their_way_share_a_budget() {
        static ALL: AtomicUsize = AtomicUsize::new(0);
        let partial = || PartialBytes { bytes: 0, all: &ALL };
        let (mut first, mut second) = (partial(), partial());
        assert!(first.keep(1) && first.keep(MAX_PARTIAL_BYTES - 1));
        assert!(second.keep(1));
        assert!(!second.keep(2), "there is no room for another byte");
        drop(first);
        assert!(second.keep(MAX_PARTIAL_BYTES));
        drop(second);
        assert_eq!(ALL.load(Ordering::Relaxed), 0);
    }
}
