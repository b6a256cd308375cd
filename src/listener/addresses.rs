//! The addresses that have connections, and how many each may have.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use crate::rpc::{holdings::SourceHoldings, source::Source};

/// The least number of addresses at which those without connections are removed.
const MIN_SWEPT: usize = 64;

/// One address, and what it holds.
#[derive(Debug, Default)]
pub struct Address {
    connections: AtomicUsize,
    pub holdings: Arc<SourceHoldings>,
}

/// A connection of an [`Address`], until it is dropped.
#[derive(Debug)]
pub struct AddressConnection(Arc<Address>);

impl AddressConnection {
    /// How many connections its address has, this one among them.
    pub fn of_address(&self) -> usize {
        self.0.connections.load(Relaxed)
    }

    pub fn holdings(&self) -> Arc<SourceHoldings> {
        Arc::clone(&self.0.holdings)
    }
}

impl Drop for AddressConnection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

/// Every address that has a connection.
#[derive(Debug, Default)]
pub struct Addresses {
    by_address: HashMap<Source, Weak<Address>>,
    swept_at: usize,
}

impl Addresses {
    /// Counts one more connection from this address. `None` where it has its share of the
    /// `limit` and only the last eighth is `left`, which is for other addresses.
    pub fn admit(&mut self, source: Source, limit: usize, left: usize) -> Option<AddressConnection> {
        let known = self.of(source);
        if left <= limit / 8 {
            self.sweep();
            // An address that is not there yet has a share too.
            let share = limit / (self.by_address.len() + 1);
            if known.connections.load(Relaxed) >= share.max(1) {
                return None;
            }
        }
        known.connections.fetch_add(1, Relaxed);
        Some(AddressConnection(known))
    }

    fn of(&mut self, source: Source) -> Arc<Address> {
        if self.by_address.len() >= self.swept_at.max(MIN_SWEPT) {
            self.sweep();
            self.swept_at = 2 * self.by_address.len();
        }
        let known = self.by_address.entry(source).or_default();
        known.upgrade().unwrap_or_else(|| {
            let new = Arc::<Address>::default();
            *known = Arc::downgrade(&new);
            new
        })
    }

    fn sweep(&mut self) {
        self.by_address.retain(|_, known| known.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many connections as there are for this address.
    fn hog(addresses: &mut Addresses, address: &str, limit: usize, open: usize) -> Vec<AddressConnection> {
        let source = Source::of(address.parse().unwrap());
        let admitted = (open..limit).map_while(|open| addresses.admit(source, limit, limit - open));
        admitted.collect()
    }

    #[test]
    fn an_address_leaves_the_last_eighth_to_others() {
        let mut addresses = Addresses::default();
        let greedy = hog(&mut addresses, "192.0.2.1", 64, 0);
        assert_eq!(greedy.len(), 56);
        let other = hog(&mut addresses, "192.0.2.2", 64, 56);
        assert_eq!(other.len(), 8);
        drop(greedy);
        assert_eq!(hog(&mut addresses, "192.0.2.1", 64, 8).len(), 48);
    }

    #[test]
    fn the_connections_of_an_address_are_counted_until_they_end() {
        let mut addresses = Addresses::default();
        let mut admit =
            |address: &str| addresses.admit(Source::of(address.parse().unwrap()), 64, 64).unwrap();
        let first = admit("192.0.2.1");
        let second = admit("192.0.2.1");
        assert_eq!((second.of_address(), admit("192.0.2.2").of_address()), (2, 1));
        drop(first);
        assert_eq!(admit("192.0.2.1").of_address(), 2);
    }

    #[test]
    fn a_small_limit_is_not_shared() {
        assert_eq!(hog(&mut Addresses::default(), "192.0.2.1", 7, 0).len(), 7);
    }

    #[test]
    fn addresses_without_connections_are_forgotten() {
        let mut addresses = Addresses::default();
        for n in 0..10_000_u32 {
            drop(addresses.admit(Source::of(std::net::Ipv4Addr::from_bits(n).into()), 1_000, 1_000));
        }
        assert!(addresses.by_address.len() <= 2 * MIN_SWEPT, "{}", addresses.by_address.len());
    }
}
