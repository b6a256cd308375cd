//! Limits on calls in flight and on requests on their way, and the permits of calls.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use http::Response;
use metrics::{Counter, Gauge, counter, gauge};

use crate::{
    rpc::{
        byte_budget::ByteBudget,
        goaway::ConnectionHandle,
        holdings::{Holdings, LimitKind, SourceHoldings},
        status::{self, PreparedAnswer},
    },
    util::counter::at_zero,
};

/// For how long a newcomer that was turned away is remembered.
const NEWCOMER_MEMORY: Duration = Duration::from_secs(1);

/// A limit on calls in flight, for the whole process.
#[derive(Debug)]
pub struct Limiter {
    kind: LimitKind,
    limit: usize,
    in_flight: AtomicUsize,
    /// Addresses that hold any of the permits.
    addresses: AtomicUsize,
    /// When a call was turned away that had less than its share; see [`now_ms`].
    newcomer_ms: AtomicU64,
    in_flight_gauge: Gauge,
    shed: Counter,
    /// A second limiter, which each call must pass as well.
    next: Option<Arc<Limiter>>,
}

impl Limiter {
    #[allow(clippy::cast_precision_loss, reason = "a limit of 2^52 calls is no limit")]
    pub fn new(kind: LimitKind, limit: usize, next: Option<Arc<Limiter>>) -> Self {
        let name = kind.name();
        gauge!("grpc_server_admission_limit", "kind" => name).set(limit as f64);
        let shed = at_zero(counter!("grpc_server_admission_shed_total", "kind" => name));
        Self {
            kind,
            limit,
            in_flight: AtomicUsize::new(0),
            addresses: AtomicUsize::new(0),
            newcomer_ms: AtomicU64::new(0),
            in_flight_gauge: gauge!("grpc_server_admission_in_flight", "kind" => name),
            shed,
            next,
        }
    }

    /// Which limit would turn the next call of this connection away, if one would; it may be
    /// turned away a moment later all the same.
    pub fn full(&self, connection: &ConnectionHandle) -> Option<&Self> {
        if self.has_room(self.in_flight(), connection.holdings()) {
            return self.next.as_ref().and_then(|next| next.full(connection));
        }
        Some(self)
    }

    /// Counts a call that is turned away.
    pub fn count_shed(&self) {
        self.shed.increment(1);
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// A permit for a call of this connection; `None` where none is left for it.
    pub fn enter(self: &Arc<Self>, connection: &ConnectionHandle) -> Option<Permit> {
        self.admit(connection.holdings())
            .then(|| Permit { limiter: Arc::clone(self), connection: connection.clone() })
    }

    fn admit(&self, held: &Holdings) -> bool {
        // Taken first and given back when it was one too many: two callers can never both have the
        // last place, and a call that is turned away needs no loop.
        let others = self.in_flight.fetch_add(1, Relaxed);
        if !self.has_room(others, held) {
            self.in_flight.fetch_sub(1, Relaxed);
            self.shed.increment(1);
            return false;
        }
        if self.next.as_ref().is_some_and(|next| !next.admit(held)) {
            self.in_flight.fetch_sub(1, Relaxed);
            return false;
        }
        held.take(self.kind, &self.addresses);
        self.in_flight_gauge.increment(1.0);
        true
    }

    /// Whether one more call fits next to so many others. The last eighth of the limit is
    /// for connections that have less than their share of it.
    fn has_room(&self, others: usize, held: &Holdings) -> bool {
        if others < self.limit - self.limit.div_ceil(8) {
            return true;
        }
        let expects_newcomer = self.kind.is_long_lived() || self.has_newcomer();
        let addresses = self.addresses.load(Relaxed);
        if held.is_used_up(self.kind, self.limit, addresses, usize::from(expects_newcomer)) {
            return false;
        }
        if others >= self.limit {
            self.newcomer_ms.store(now_ms(), Relaxed);
        }
        others < self.limit
    }

    /// Whether a connection below its share was turned away lately. It may come again.
    fn has_newcomer(&self) -> bool {
        let memory = u64::try_from(NEWCOMER_MEMORY.as_millis()).unwrap_or(u64::MAX);
        let newcomer_ms = self.newcomer_ms.load(Relaxed);
        newcomer_ms > 0 && now_ms().saturating_sub(newcomer_ms) < memory
    }

    fn leave(&self, held: &Holdings) {
        held.release(self.kind, &self.addresses);
        self.in_flight.fetch_sub(1, Relaxed);
        self.in_flight_gauge.decrement(1.0);
        if let Some(next) = &self.next {
            next.leave(held);
        }
    }
}

/// Milliseconds on a clock of this process; never 0.
fn now_ms() -> u64 {
    static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(STARTED.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

/// The right of one call to be in flight.
#[derive(Debug)]
pub struct Permit {
    limiter: Arc<Limiter>,
    connection: ConnectionHandle,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limiter.leave(self.connection.holdings());
    }
}

/// The bytes of unary requests that are kept while the rest of them is on its way. Requests
/// in one frame need none of it.
static PARTIAL_BYTES: ByteBudget = ByteBudget::new(32 * 1_024 * 1_024);

/// The bytes of one request of which the rest is on its way.
#[derive(Debug)]
pub struct PartialBytes {
    len: usize,
    /// Whose they are; `None` while there are none.
    address: Option<Arc<SourceHoldings>>,
    all: &'static ByteBudget,
}

impl Default for PartialBytes {
    fn default() -> Self {
        Self { len: 0, address: None, all: &PARTIAL_BYTES }
    }
}

impl PartialBytes {
    /// Whether the request of this connection may be kept, of this length by now.
    pub fn keep(&mut self, len: usize, connection: &ConnectionHandle) -> bool {
        if len <= self.len {
            return true;
        }
        let address = self.address.get_or_insert_with(|| Arc::clone(connection.holdings().address()));
        if !self.all.grow(&address.partial_bytes, self.len, len) {
            return false;
        }
        self.len = len;
        true
    }
}

impl Drop for PartialBytes {
    fn drop(&mut self) {
        if let Some(address) = &self.address {
            self.all.remove(&address.partial_bytes, self.len);
        }
    }
}

static TURNED_AWAY: LazyLock<PreparedAnswer> = LazyLock::new(|| PreparedAnswer::of(status::overloaded()));

/// The answer to a call that is turned away.
pub fn turned_away<R: Default>() -> Response<R> {
    TURNED_AWAY.response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection of this address.
    fn connection(address: &Arc<SourceHoldings>) -> ConnectionHandle {
        ConnectionHandle::new(1, None, Arc::default(), Holdings::of(Arc::clone(address)))
    }

    fn limiter(kind: LimitKind, limit: usize) -> Arc<Limiter> {
        Arc::new(Limiter::new(kind, limit, None))
    }

    /// As many permits as there are.
    fn hog(limiter: &Arc<Limiter>, connection: &ConnectionHandle) -> Vec<Permit> {
        std::iter::from_fn(|| limiter.enter(connection)).collect()
    }

    #[test]
    fn a_connection_without_others_gets_every_permit() {
        let unary = limiter(LimitKind::Unary, 16);
        let alone = connection(&Arc::default());
        let mut held = hog(&unary, &alone);
        assert_eq!(held.len(), 16);
        held.pop();
        assert!(unary.enter(&alone).is_some(), "its own refusal makes it no newcomer");
    }

    #[test]
    fn a_newcomer_that_was_turned_away_finds_a_permit_when_it_comes_again() {
        let unary = limiter(LimitKind::Unary, 16);
        let (greedy, newcomer) = (connection(&Arc::default()), connection(&Arc::default()));
        let mut held = hog(&unary, &greedy);
        assert!(unary.full(&newcomer).is_some() && unary.enter(&newcomer).is_none());
        held.pop();
        assert!(unary.enter(&greedy).is_none(), "the permit is the newcomer's");
        assert!(unary.enter(&newcomer).is_some());
    }

    #[test]
    fn the_connections_of_one_address_share_its_share() {
        let unary = limiter(LimitKind::Unary, 64);
        let (crowd, alone) = (Arc::default(), connection(&Arc::default()));
        let first = unary.enter(&alone);
        let held: Vec<_> = (0..20).flat_map(|_| hog(&unary, &connection(&crowd))).collect();
        assert!(held.len() <= 64 - 8, "{}", held.len());
        let more = hog(&unary, &alone);
        assert!(first.is_some() && more.len() >= 7, "{}", more.len());
    }

    #[test]
    fn streams_leave_room_for_a_caller_that_is_not_there_yet() {
        for kind in [LimitKind::Streaming, LimitKind::Infrastructure] {
            let streams = limiter(kind, 16);
            let held = hog(&streams, &connection(&Arc::default()));
            assert_eq!(held.len(), 14);
            assert!(streams.enter(&connection(&Arc::default())).is_some());
        }
    }

    #[test]
    fn writes_have_a_share_of_both_their_limits() {
        let unary = limiter(LimitKind::Unary, 16);
        let writes = Arc::new(Limiter::new(LimitKind::Write, 8, Some(Arc::clone(&unary))));
        let (greedy, other) = (connection(&Arc::default()), connection(&Arc::default()));
        let held = hog(&writes, &greedy);
        assert_eq!((held.len(), unary.in_flight()), (8, 8));
        assert!(unary.enter(&other).is_some());
        drop(held);
        assert_eq!((writes.in_flight(), unary.in_flight()), (0, 0));
    }

    #[test]
    fn requests_on_their_way_share_a_budget() {
        static ALL: ByteBudget = ByteBudget::new(64);
        let partial = || PartialBytes { len: 0, address: None, all: &ALL };
        let (crowd, newcomer) = (Arc::default(), connection(&Arc::default()));
        let (mut first, mut second, mut other) = (partial(), partial(), partial());
        assert!(first.keep(1, &connection(&crowd)) && first.keep(50, &connection(&crowd)));
        assert!(second.keep(6, &connection(&crowd)));
        assert!(!second.keep(7, &connection(&crowd)), "the connections of one address are one");
        assert!(other.keep(8, &newcomer) && !other.keep(9, &newcomer));
        drop(first);
        assert!(other.keep(9, &newcomer));
        drop((second, other));
        assert!(partial().keep(1_000, &newcomer), "all was given back");
        assert_eq!(newcomer.holdings().address().partial_bytes.load(Relaxed), 0);
    }
}
