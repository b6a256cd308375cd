//! The share of each caller: calls in flight, and calls in a second.
//!
//! A caller is known by its identity, or by the address of its peer where it has none.
//! The table of callers is bounded. An entry without a call that has its full rate again
//! says what a new one says, so it is dropped without loss. A caller that finds the table
//! full of others is not limited here; the limits of the whole process still hold.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use http::Response;
use metrics::{Counter, counter};

use crate::{
    config::Config,
    domain::Caller,
    rpc::{
        source::Source,
        status::{self, PreparedAnswer},
    },
    util::counter::at_zero,
};

/// Callers of different shards share no lock.
const SHARDS: usize = 64;

/// Callers in the whole table: some 8 MiB.
const MAX_CALLERS: usize = 64 * 1_024;

/// How long a caller that was quiet may call as fast as it likes.
const BURST: Duration = Duration::from_secs(1);

/// The least time between two searches of a full shard for entries to drop.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// Every caller's share.
#[derive(Debug)]
pub struct FairShares {
    /// `None`: no limit.
    max_in_flight: Option<usize>,
    /// The time that one call takes of a caller's rate, in nanoseconds. 0: no limit.
    nanos_per_call: u64,
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    started: Instant,
    refused_in_flight: Counter,
    refused_rate: Counter,
}

#[derive(Debug, Default)]
struct Shard {
    callers: HashMap<u64, Arc<Usage>>,
    swept_at: u64,
}

/// What one caller uses. Written under its shard's lock, but for the end of a call.
#[derive(Debug, Default)]
struct Usage {
    in_flight: AtomicUsize,
    /// When all calls that were made are within the rate, in nanoseconds since the start
    /// (the theoretical arrival time of GCRA).
    due: AtomicU64,
}

/// One call of a caller's share, until it is dropped.
#[derive(Debug)]
pub struct SharePermit(Arc<Usage>);

impl Drop for SharePermit {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// The caller has its share already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverQuota;

impl FairShares {
    /// `None` where no share is limited.
    pub fn new(config: &Config) -> Option<Self> {
        let (calls, rate) = (config.max_calls_per_caller, config.max_call_rate_per_caller);
        if calls == 0 && rate == 0 {
            return None;
        }
        let refused =
            |limit: &'static str| at_zero(counter!("user_service_quota_refused_total", "limit" => limit));
        Some(Self {
            max_in_flight: (calls > 0).then_some(calls),
            nanos_per_call: if rate == 0 { 0 } else { (1_000_000_000 / u64::from(rate)).max(1) },
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            started: Instant::now(),
            refused_in_flight: refused("calls_in_flight"),
            refused_rate: refused("call_rate"),
        })
    }

    /// Counts a call; `None` where the table is full of others.
    ///
    /// # Errors
    /// The caller is over its share. The call counts for nothing.
    pub fn enter(&self, caller: &Caller, source: Option<Source>) -> Result<Option<SharePermit>, OverQuota> {
        let now = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        // Two callers of one hash, of 2^64, would share what they may use.
        let key = if *caller == Caller::ANONYMOUS {
            self.hasher.hash_one(source)
        } else {
            self.hasher.hash_one(caller)
        };
        self.enter_at(now, key)
    }

    #[allow(clippy::cast_possible_truncation, reason = "the low bits choose the shard")]
    fn enter_at(&self, now: u64, key: u64) -> Result<Option<SharePermit>, OverQuota> {
        let shard = &self.shards[key as usize % SHARDS];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(usage) = shard.usage(key, now) else { return Ok(None) };
        if self.max_in_flight.is_some_and(|limit| usage.in_flight.load(Relaxed) >= limit) {
            self.refused_in_flight.increment(1);
            return Err(OverQuota);
        }
        if self.nanos_per_call > 0 {
            let due = usage.due.load(Relaxed).max(now) + self.nanos_per_call;
            // A rate of less than one in a burst would refuse every call.
            let burst = nanos(BURST).max(self.nanos_per_call);
            if due - now > burst {
                self.refused_rate.increment(1);
                return Err(OverQuota);
            }
            usage.due.store(due, Relaxed);
        }
        usage.in_flight.fetch_add(1, Relaxed);
        Ok(Some(SharePermit(usage)))
    }
}

impl Shard {
    /// What a caller uses. `None` where it is new and there is no room.
    fn usage(&mut self, key: u64, now: u64) -> Option<Arc<Usage>> {
        const MAX: usize = MAX_CALLERS / SHARDS;
        if self.callers.len() >= MAX && !self.callers.contains_key(&key) {
            if now < self.swept_at.saturating_add(nanos(SWEEP_INTERVAL)) {
                return None;
            }
            self.swept_at = now;
            self.callers
                .retain(|_, usage| usage.in_flight.load(Relaxed) > 0 || usage.due.load(Relaxed) > now);
            if self.callers.len() >= MAX {
                return None;
            }
        }
        Some(match self.callers.entry(key) {
            Entry::Occupied(entry) => Arc::clone(entry.get()),
            Entry::Vacant(entry) => Arc::clone(entry.insert(Arc::default())),
        })
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

static OVER_QUOTA: LazyLock<PreparedAnswer> = LazyLock::new(|| PreparedAnswer::of(status::over_quota()));

/// The answer to a call over its caller's share.
pub fn over_quota<R: Default>() -> Response<R> {
    OVER_QUOTA.response()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn shares(max_calls_per_caller: usize, max_call_rate_per_caller: u32) -> FairShares {
        FairShares::new(&Config { max_calls_per_caller, max_call_rate_per_caller, ..Config::default() })
            .unwrap()
    }

    fn callers(shares: &FairShares) -> usize {
        shares.shards.iter().map(|shard| shard.lock().unwrap().callers.len()).sum()
    }

    #[test]
    fn a_caller_has_its_share_and_takes_none_of_others() {
        let shares = shares(2, 0);
        let (ada, bob) = (Caller::named("sub:ada"), Caller::named("sub:bob"));
        let first = shares.enter(&ada, None).unwrap();
        let _second = shares.enter(&ada, None).unwrap();
        assert_eq!(shares.enter(&ada, None).unwrap_err(), OverQuota);
        assert!(shares.enter(&bob, None).is_ok());
        drop(first);
        assert!(shares.enter(&ada, None).is_ok(), "the first call has ended");
    }

    #[test]
    fn callers_without_an_identity_are_known_by_their_address() {
        let shares = shares(1, 0);
        let source = |address: &str| Some(Source::of(address.parse().unwrap()));
        let _held = shares.enter(&Caller::ANONYMOUS, source("192.0.2.1")).unwrap();
        assert!(shares.enter(&Caller::ANONYMOUS, source("192.0.2.1")).is_err());
        assert!(shares.enter(&Caller::ANONYMOUS, source("192.0.2.2")).is_ok());
        assert!(shares.enter(&Caller::named("sub:ada"), source("192.0.2.1")).is_ok());
    }

    #[test]
    fn a_caller_at_its_rate_is_never_refused() {
        let shares = shares(0, 100);
        for call in 0..1_000 {
            assert!(shares.enter_at(call * SECOND / 100, 7).is_ok(), "call {call}");
        }
    }

    #[test]
    fn a_caller_over_its_rate_gets_its_rate() {
        let shares = shares(0, 100);
        let admitted = (0..10_000).filter(|call| shares.enter_at(call * SECOND / 1_000, 7).is_ok()).count();
        // Ten seconds at the rate, and the burst of the first one.
        assert!((1_090..=1_101).contains(&admitted), "{admitted}");
    }

    #[test]
    fn a_rate_of_one_call_in_a_second_admits_calls() {
        let shares = shares(0, 1);
        assert!(shares.enter_at(0, 7).is_ok());
        assert!(shares.enter_at(1, 7).is_err());
        assert!(shares.enter_at(SECOND, 7).is_ok());
    }

    #[test]
    fn any_number_of_callers_takes_bounded_memory_and_a_busy_one_keeps_its_entry() {
        let shares = shares(1, 1);
        let _held = shares.enter_at(0, u64::MAX).unwrap();
        for caller in 0..4 * MAX_CALLERS as u64 {
            let _ = shares.enter_at(caller * SECOND / 1_000, caller);
        }
        assert!(callers(&shares) <= MAX_CALLERS, "{}", callers(&shares));
        assert!(shares.enter_at(u64::MAX / 2, u64::MAX).is_err(), "its call is still in flight");
    }
}
