//! Bytes that callers have the process keep for them, up to a limit that addresses share.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A limit on such bytes, for the whole process.
///
/// A message larger than what every address may take counts as that much, so it finds room
/// where nothing else is kept, and leaves the rest of the limit to others all the same.
#[derive(Debug)]
pub struct ByteBudget {
    limit: usize,
    held: AtomicUsize,
    /// Addresses that hold any of them.
    addresses: AtomicUsize,
}

impl ByteBudget {
    pub const fn new(limit: usize) -> Self {
        Self { limit, held: AtomicUsize::new(0), addresses: AtomicUsize::new(0) }
    }

    /// Counts a message of an address, which holds `mine`, with `to` bytes instead of `from`.
    /// Where there is no room, it counts as before.
    pub fn grow(&self, mine: &AtomicUsize, from: usize, to: usize) -> bool {
        let more = self.counted(to).saturating_sub(self.counted(from));
        if more == 0 {
            return true;
        }
        // Taken first and given back when it was too much, as a permit is.
        let held = self.held.fetch_add(more, Relaxed);
        if !self.fits(held, mine, more) {
            self.held.fetch_sub(more, Relaxed);
            return false;
        }
        self.count(mine, more);
        true
    }

    /// Whether a message of this length would find room now.
    pub fn has_room(&self, mine: &AtomicUsize, len: usize) -> bool {
        self.fits(self.held.load(Relaxed), mine, self.counted(len))
    }

    /// Counts a message, whether there is room or not.
    pub fn add(&self, mine: &AtomicUsize, len: usize) {
        let len = self.counted(len);
        if len > 0 {
            self.held.fetch_add(len, Relaxed);
            self.count(mine, len);
        }
    }

    /// A message of this length is no longer kept.
    pub fn remove(&self, mine: &AtomicUsize, len: usize) {
        let len = self.counted(len);
        if len > 0 {
            if mine.fetch_sub(len, Relaxed) == len {
                self.addresses.fetch_sub(1, Relaxed);
            }
            self.held.fetch_sub(len, Relaxed);
        }
    }

    /// Whether more than half of the limit is used up.
    pub fn is_half_used(&self) -> bool {
        self.held.load(Relaxed) > self.limit / 2
    }

    fn count(&self, mine: &AtomicUsize, len: usize) {
        if mine.fetch_add(len, Relaxed) == 0 {
            self.addresses.fetch_add(1, Relaxed);
        }
    }

    fn counted(&self, len: usize) -> usize {
        len.min(self.common())
    }

    /// What any address may take. The last eighth is for addresses below their share, as of
    /// the limits on calls: so much of some MiB is many messages of the usual size, and a
    /// proxy, whose address is often the only one, hardly misses it.
    const fn common(&self) -> usize {
        self.limit - self.limit / 8
    }

    fn fits(&self, held: usize, mine: &AtomicUsize, more: usize) -> bool {
        let all = held + more;
        // An address that is not there yet has a share too.
        let share = || self.limit / (self.addresses.load(Relaxed) + 1);
        all <= self.common() || (all <= self.limit && mine.load(Relaxed) + more <= share())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many bytes as an address gets, in messages of one.
    fn hog(budget: &ByteBudget, mine: &AtomicUsize) -> usize {
        (0..100).take_while(|_| budget.grow(mine, 0, 1)).count()
    }

    fn holdings<const N: usize>() -> [AtomicUsize; N] {
        [const { AtomicUsize::new(0) }; N]
    }

    #[test]
    fn an_address_alone_gets_all_but_the_last_eighth() {
        let (budget, [alone, newcomer]) = (ByteBudget::new(64), holdings());
        assert_eq!(hog(&budget, &alone), 56);
        assert!(!budget.has_room(&alone, 1) && budget.has_room(&newcomer, 8));
        assert_eq!(hog(&budget, &newcomer), 8);
        assert!(!budget.has_room(&newcomer, 1), "the limit holds for everyone");
    }

    #[test]
    fn addresses_that_take_turns_leave_a_share_to_a_newcomer() {
        for (addresses, left) in [(1, 8), (3, 8), (7, 8), (15, 4)] {
            let (budget, all) = (ByteBudget::new(64), holdings::<15>());
            for _ in 0..64 {
                for mine in &all[..addresses] {
                    budget.grow(mine, 0, 1);
                }
            }
            assert_eq!(budget.addresses.load(Relaxed), addresses);
            assert_eq!(budget.held.load(Relaxed), 64 - left, "{addresses} addresses");
            assert!(budget.has_room(&AtomicUsize::new(0), left), "{addresses} addresses");
        }
    }

    #[test]
    fn a_message_larger_than_everything_goes_alone_and_leaves_room_for_others() {
        let (budget, [large, newcomer]) = (ByteBudget::new(64), holdings());
        for mine in [&large, &newcomer] {
            assert!(
                budget.grow(mine, 0, 50) && budget.grow(mine, 50, 1_000) && budget.grow(mine, 1_000, 1_001)
            );
            budget.remove(mine, 1_001);
        }
        budget.add(&large, 1_000);
        assert!(!budget.has_room(&newcomer, 1_000) && budget.has_room(&newcomer, 8));
        budget.remove(&large, 1_000);
        budget.add(&newcomer, 1);
        assert!(!budget.has_room(&large, 1_000), "it would not be alone");
    }

    #[test]
    fn what_was_counted_is_given_back_and_what_was_refused_is_not_counted() {
        let (budget, [one, other]) = (ByteBudget::new(64), holdings());
        budget.add(&one, 0);
        assert_eq!(budget.addresses.load(Relaxed), 0);
        assert!(budget.grow(&one, 0, 40) && budget.grow(&other, 0, 10) && budget.is_half_used());
        assert!(!budget.grow(&one, 40, 50) && !budget.grow(&other, 10, 25));
        budget.remove(&one, 40);
        assert!(budget.grow(&other, 10, 25));
        budget.remove(&other, 25);
        budget.remove(&other, 0);
        let left = [&budget.held, &budget.addresses, &one, &other].map(|count| count.load(Relaxed));
        assert_eq!(left, [0; 4]);
    }
}
