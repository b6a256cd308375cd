//! The connections of each source, so that no source takes all of them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use metrics::{Counter, counter};

use crate::rpc::source::Source;

/// How many connections each source has. Bounded by the limit on connections, because each
/// entry has one.
#[derive(Clone, Debug)]
pub struct ConnectionShares {
    /// 0: no limit, and nothing is counted.
    limit: usize,
    open: Arc<Mutex<HashMap<Source, usize>>>,
    refused: Counter,
}

impl ConnectionShares {
    pub fn new(limit: usize) -> Self {
        let refused = if limit == 0 {
            Counter::noop()
        } else {
            counter!("user_service_quota_refused_total", "limit" => "connections")
        };
        refused.increment(0);
        Self { limit, open: Arc::default(), refused }
    }

    /// One connection of a source; `None` where it has its share.
    pub fn take(&self, source: Source) -> Option<ConnectionShare> {
        if self.limit == 0 {
            return Some(ConnectionShare(None));
        }
        let mut open = self.lock();
        let count = open.entry(source).or_default();
        if *count >= self.limit {
            self.refused.increment(1);
            return None;
        }
        *count += 1;
        drop(open);
        Some(ConnectionShare(Some((self.clone(), source))))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Source, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's part of its source's share, until it is dropped.
#[derive(Debug)]
pub struct ConnectionShare(Option<(ConnectionShares, Source)>);

impl Drop for ConnectionShare {
    fn drop(&mut self) {
        let Some((shares, source)) = &self.0 else { return };
        let mut open = shares.lock();
        if let Some(count) = open.get_mut(source) {
            *count -= 1;
            if *count == 0 {
                open.remove(source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(address: &str) -> Source {
        Source::of(address.parse().unwrap())
    }

    #[test]
    fn a_source_has_its_share_and_nothing_is_kept_of_one_that_left() {
        let shares = ConnectionShares::new(2);
        let (first, _second) = (shares.take(source("192.0.2.1")), shares.take(source("192.0.2.1")));
        assert!(first.is_some() && shares.take(source("192.0.2.1")).is_none());
        let other = shares.take(source("192.0.2.2"));
        assert!(other.is_some());
        drop((first, other));
        assert!(shares.take(source("192.0.2.1")).is_some());
        assert_eq!(shares.lock().len(), 1);
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let shares = ConnectionShares::new(0);
        let open: Vec<_> = (0..10).map(|_| shares.take(source("192.0.2.1"))).collect();
        assert!(open.iter().all(Option::is_some) && shares.lock().is_empty());
    }
}
