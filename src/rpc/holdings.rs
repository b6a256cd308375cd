//! Fair shares of the limits on calls, by address and by connection.
//!
//! A limit is shared among the addresses that hold any of its permits, and the
//! share of an address among its connections. A connection without others gets the whole
//! limit. A connection that has its share, or whose address has, leaves the last eighth of
//! the limit to others.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// The limits that are shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    Unary,
    Write,
    Streaming,
    /// Streams of health and reflection.
    Infrastructure,
}

impl LimitKind {
    const COUNT: usize = 4;

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::Write => "write",
            Self::Streaming => "streaming",
            Self::Infrastructure => "infrastructure",
        }
    }

    /// Whether permits may be held for as long as their callers like, so that there must
    /// be one left for a caller that is not there yet.
    pub fn is_long_lived(self) -> bool {
        matches!(self, Self::Streaming | Self::Infrastructure)
    }
}

/// What one address holds of each limit.
#[derive(Debug, Default)]
pub struct SourceHoldings {
    permits: [Held; LimitKind::COUNT],
    /// Bytes of requests of which the rest is on its way.
    pub partial_bytes: AtomicUsize,
    /// Bytes of answers that wait to be read.
    pub unread_bytes: AtomicUsize,
}

#[derive(Debug, Default)]
struct Held {
    permits: AtomicUsize,
    /// Connections that hold any of them.
    connections: AtomicUsize,
}

/// What one connection holds of each limit.
#[derive(Debug, Default)]
pub struct Holdings {
    address: Arc<SourceHoldings>,
    permits: [AtomicUsize; LimitKind::COUNT],
}

impl Holdings {
    /// Of a connection of this address.
    pub fn of(address: Arc<SourceHoldings>) -> Self {
        Self { address, permits: Default::default() }
    }

    /// What the address of the connection holds.
    pub fn address(&self) -> &Arc<SourceHoldings> {
        &self.address
    }

    /// Counts a permit. `addresses` counts the addresses that hold any.
    pub fn take(&self, kind: LimitKind, addresses: &AtomicUsize) {
        let held = &self.address.permits[kind as usize];
        if self.permits[kind as usize].fetch_add(1, Relaxed) == 0 {
            held.connections.fetch_add(1, Relaxed);
        }
        if held.permits.fetch_add(1, Relaxed) == 0 {
            addresses.fetch_add(1, Relaxed);
        }
    }

    /// The permit is no longer held.
    pub fn release(&self, kind: LimitKind, addresses: &AtomicUsize) {
        let held = &self.address.permits[kind as usize];
        if self.permits[kind as usize].fetch_sub(1, Relaxed) == 1 {
            held.connections.fetch_sub(1, Relaxed);
        }
        if held.permits.fetch_sub(1, Relaxed) == 1 {
            addresses.fetch_sub(1, Relaxed);
        }
    }

    /// Whether the connection, or its address, has its share of a limit. It is shared with
    /// the `addresses` that hold any, and with so many newcomers that hold none yet.
    pub fn is_used_up(&self, kind: LimitKind, limit: usize, addresses: usize, newcomers: usize) -> bool {
        let held = &self.address.permits[kind as usize];
        let of_address = held.permits.load(Relaxed);
        let of_connection = self.permits[kind as usize].load(Relaxed);
        let with_me = |others: usize, mine: usize| others + usize::from(mine == 0) + newcomers;
        let address_share = limit / with_me(addresses, of_address).max(1);
        let share = address_share / with_me(held.connections.load(Relaxed), of_connection).max(1);
        of_address >= address_share.max(1) || of_connection >= share.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: LimitKind = LimitKind::Unary;

    #[test]
    fn a_share_is_divided_among_addresses_and_then_among_their_connections() {
        let addresses = AtomicUsize::new(0);
        let (one, other) = (Arc::<SourceHoldings>::default(), Arc::<SourceHoldings>::default());
        let first = Holdings::of(Arc::clone(&one));
        let second = Holdings::of(one);
        let alone = Holdings::of(other);
        let used_up = |shares: &Holdings| shares.is_used_up(KIND, 12, addresses.load(Relaxed), 0);
        for _ in 0..11 {
            first.take(KIND, &addresses);
        }
        assert!(!used_up(&first), "no other connection shares it");
        first.take(KIND, &addresses);
        assert!(used_up(&first));
        assert!(used_up(&second), "its address has everything");
        assert!(!used_up(&alone));
        alone.take(KIND, &addresses);
        for _ in 0..8 {
            first.release(KIND, &addresses);
        }
        assert!(!used_up(&first), "4 of its address's 6");
        second.take(KIND, &addresses);
        assert!(used_up(&first), "more than 3 of its address's 6");
        assert!(!used_up(&second) && !used_up(&alone));
    }

    #[test]
    fn whoever_is_not_there_yet_has_a_share_where_it_is_asked_for() {
        let addresses = AtomicUsize::new(0);
        let shares = Holdings::default();
        for _ in 0..4 {
            shares.take(KIND, &addresses);
        }
        assert!(!shares.is_used_up(KIND, 16, 1, 0));
        assert!(shares.is_used_up(KIND, 16, 1, 1));
        assert!(!Holdings::default().is_used_up(KIND, 1, 1, 1), "a first one is always fair");
    }

    #[test]
    fn what_was_released_is_held_no_longer() {
        let addresses = AtomicUsize::new(0);
        let shares = Holdings::default();
        shares.take(KIND, &addresses);
        shares.take(KIND, &addresses);
        assert_eq!(addresses.load(Relaxed), 1);
        shares.release(KIND, &addresses);
        assert_eq!(addresses.load(Relaxed), 1);
        shares.release(KIND, &addresses);
        assert_eq!(addresses.load(Relaxed), 0);
        assert_eq!(shares.address.permits[KIND as usize].connections.load(Relaxed), 0);
    }
}
