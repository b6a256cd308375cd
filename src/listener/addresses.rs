//! The addresses that have connections, and how many each may have.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::rpc::{holdings::SourceHoldings, source::Source};

/// The least number of addresses at which those without connections are removed.
const MIN_SWEPT: usize = 64;

/// One address, and what it holds.
#[derive(Debug)]
pub struct Address {
    connections: AtomicUsize,
    pub holdings: Arc<SourceHoldings>,
    /// How many addresses there are.
    count: Arc<AtomicUsize>,
}

impl Address {
    fn new(count: &Arc<AtomicUsize>) -> Arc<Self> {
        count.fetch_add(1, Relaxed);
        Arc::new(Self {
            connections: AtomicUsize::new(0),
            holdings: Arc::default(),
            count: Arc::clone(count),
        })
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Relaxed);
    }
}

/// A connection of an [`Address`], and its permit, until it is dropped.
#[derive(Debug)]
pub struct AddressConnection {
    address: Arc<Address>,
    _permit: OwnedSemaphorePermit,
}

impl AddressConnection {
    /// How many connections its address has, this one among them.
    pub fn of_address(&self) -> usize {
        self.address.connections.load(Relaxed)
    }

    pub fn holdings(&self) -> Arc<SourceHoldings> {
        Arc::clone(&self.address.holdings)
    }
}

impl Drop for AddressConnection {
    fn drop(&mut self) {
        self.address.connections.fetch_sub(1, Relaxed);
    }
}

/// Every address that has a connection, and the permits of all of them.
#[derive(Debug)]
pub struct Addresses {
    permits: Arc<Semaphore>,
    /// How many permits there are in all.
    limit: usize,
    by_address: HashMap<Source, Weak<Address>>,
    /// Of those that have connections: others are in the map until it is swept.
    count: Arc<AtomicUsize>,
    swept_at: usize,
}

impl Addresses {
    /// `permits` are those of a port without connections.
    pub fn new(permits: Arc<Semaphore>) -> Self {
        let limit = permits.available_permits();
        Self { permits, limit, by_address: HashMap::new(), count: Arc::default(), swept_at: 0 }
    }

    /// Takes a permit for one more connection from this address. `None` where none is left, or
    /// where the address has its share and only the last eighth is left, which is for others.
    pub fn admit(&mut self, source: Source) -> Option<AddressConnection> {
        let known = self.of(source);
        if self.permits.available_permits() <= self.limit / 8 {
            // An address that is not there yet has a share too.
            let share = self.limit / (self.count.load(Relaxed) + 1);
            if known.connections.load(Relaxed) >= share.max(1) {
                return None;
            }
        }
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        known.connections.fetch_add(1, Relaxed);
        Some(AddressConnection { address: known, _permit: permit })
    }

    fn of(&mut self, source: Source) -> Arc<Address> {
        if self.by_address.len() >= self.swept_at.max(MIN_SWEPT) {
            self.sweep();
            self.swept_at = 2 * self.by_address.len();
        }
        let known = self.by_address.entry(source).or_default();
        known.upgrade().unwrap_or_else(|| {
            let new = Address::new(&self.count);
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
    use std::iter;

    use super::*;

    fn addresses(limit: usize) -> Addresses {
        Addresses::new(Arc::new(Semaphore::new(limit)))
    }

    /// As many connections as there are for this address.
    fn hog(addresses: &mut Addresses, address: &str) -> Vec<AddressConnection> {
        let source = Source::of(address.parse().unwrap());
        iter::from_fn(|| addresses.admit(source)).collect()
    }

    #[test]
    fn an_address_leaves_the_last_eighth_to_others() {
        let mut addresses = addresses(64);
        let greedy = hog(&mut addresses, "192.0.2.1");
        assert_eq!(greedy.len(), 56);
        let other = hog(&mut addresses, "192.0.2.2");
        assert_eq!(other.len(), 8);
        drop(greedy);
        assert_eq!(hog(&mut addresses, "192.0.2.1").len(), 48);
    }

    #[test]
    fn the_connections_of_an_address_are_counted_until_they_end() {
        let mut addresses = addresses(64);
        let mut admit = |address: &str| addresses.admit(Source::of(address.parse().unwrap())).unwrap();
        let first = admit("192.0.2.1");
        let second = admit("192.0.2.1");
        assert_eq!((second.of_address(), admit("192.0.2.2").of_address()), (2, 1));
        drop(first);
        assert_eq!(admit("192.0.2.1").of_address(), 2);
    }

    #[test]
    fn a_small_limit_is_not_shared() {
        assert_eq!(hog(&mut addresses(7), "192.0.2.1").len(), 7);
    }

    #[test]
    fn addresses_without_connections_are_forgotten() {
        let mut addresses = addresses(1_000);
        for n in 0..10_000_u32 {
            drop(addresses.admit(Source::of(std::net::Ipv4Addr::from_bits(n).into())));
        }
        assert!(addresses.by_address.len() <= 2 * MIN_SWEPT, "{}", addresses.by_address.len());
    }
}
