//! The latest entries of the change log, and who has got how far in them.

use std::{collections::VecDeque, sync::Arc};

use slab::Slab;

use super::meter::Meter;
use crate::domain::{Entry, Event, Revision};

/// The most entries that are handed out at once: they stay alive until they are
/// sent, whether or not the ring still has them.
const HANDFUL: usize = 32;

pub(super) struct Ring {
    /// In the order of their revisions, without gaps, up to `newest`.
    entries: VecDeque<Arc<Entry>>,
    /// What the entries weigh, which is kept to `limit`.
    bytes: usize,
    limit: usize,
    /// The last revision that was read; `None` while nothing is.
    newest: Option<Revision>,
    /// For each watch how far it has got, once it is served from here.
    seats: Slab<Option<Revision>>,
    /// How often all watches were given up.
    epoch: u64,
}

/// What there is for the reader to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nobody watches.
    Rest,
    Begin,
    Follow(Revision),
}

/// What there is for a watch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    Entries(Vec<Arc<Entry>>),
    Nothing,
    /// What it wants is not here yet, or any more: the store has it.
    Elsewhere,
    /// It was served from here and has fallen behind.
    TooSlow,
    /// Nothing more comes for this watch.
    GivenUp,
}

impl Ring {
    pub fn new(limit: usize) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, limit, newest: None, seats: Slab::new(), epoch: 0 }
    }

    pub fn next(&self) -> Next {
        match self.newest {
            _ if self.seats.is_empty() => Next::Rest,
            None => Next::Begin,
            Some(newest) => Next::Follow(newest),
        }
    }

    /// Takes up what comes after this revision, unless everybody has left meanwhile.
    pub fn begin(&mut self, newest: Revision) {
        if !self.seats.is_empty() {
            self.newest = Some(newest);
        }
    }

    /// Takes up what was read after a revision, if that is still wanted.
    pub fn push(&mut self, after: Revision, entries: Vec<Entry>) {
        if self.newest != Some(after) {
            return;
        }
        self.newest = entries.last().map(|last| last.point.revision);
        for entry in entries {
            self.bytes += weight(&entry);
            self.entries.push_back(Arc::new(entry));
        }
        while self.bytes > self.limit
            && let Some(oldest) = self.entries.pop_front()
        {
            self.bytes -= weight(&oldest);
        }
    }

    pub fn give_up(&mut self) {
        self.epoch += 1;
        self.clear();
    }

    /// A seat, and the epoch that it belongs to.
    pub fn join(&mut self) -> (usize, u64) {
        (self.seats.insert(None), self.epoch)
    }

    pub fn leave(&mut self, seat: usize) {
        self.seats.remove(seat);
        if self.seats.is_empty() {
            self.clear();
        }
    }

    /// What comes after a revision for the watch on a seat.
    pub fn look(&mut self, seat: usize, epoch: u64, after: Revision) -> Look {
        if epoch != self.epoch {
            return Look::GivenUp;
        }
        let Some(newest) = self.newest else { return Look::Nothing };
        let is_served = &mut self.seats[seat];
        if after >= newest {
            *is_served = Some(after);
            return Look::Nothing;
        }
        let Some(from) = usize::try_from(newest - after).ok().and_then(|n| self.entries.len().checked_sub(n))
        else {
            return if is_served.is_some() { Look::TooSlow } else { Look::Elsewhere };
        };
        *is_served = Some(after);
        Look::Entries(self.entries.range(from..).take(HANDFUL).cloned().collect())
    }

    pub fn measure(&self, meter: &Meter) {
        let slowest = self.seats.iter().filter_map(|(_, after)| *after).min();
        let behind = self.newest.zip(slowest).map_or(0, |(newest, slowest)| newest.saturating_sub(slowest));
        meter.ring(self.bytes, behind);
    }

    fn clear(&mut self) {
        // With the room that they took.
        self.entries = VecDeque::new();
        self.bytes = 0;
        self.newest = None;
    }
}

/// What an entry takes up, in bytes: itself, its texts, and what the allocator
/// needs for each part.
fn weight(entry: &Entry) -> usize {
    const PART: usize = 16;
    let texts = match &entry.event {
        Event::Created(user) | Event::Updated(user) => {
            user.id.as_str().len() + user.name.as_str().len() + user.email.as_str().len() + 3 * PART
        }
        Event::Deleted(id) => id.as_str().len() + PART,
    };
    // Two counters stand before what an `Arc` points to, which the ring points to.
    size_of::<Entry>() + 3 * size_of::<usize>() + PART + texts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Point, Timestamp, UserId};

    fn entries(revisions: std::ops::RangeInclusive<Revision>) -> Vec<Entry> {
        let event = Event::Deleted(UserId::parse("ada").unwrap());
        let point = |revision| Point { revision, time: Timestamp::from_micros(0) };
        revisions.map(|revision| Entry { point: point(revision), event: event.clone() }).collect()
    }

    fn taken(look: Look) -> Vec<Revision> {
        let Look::Entries(entries) = look else { panic!("{look:?}") };
        entries.iter().map(|entry| entry.point.revision).collect()
    }

    /// A ring with room for ten entries that was begun at revision 5.
    fn begun() -> (Ring, usize) {
        let mut ring = Ring::new(10 * weight(&entries(1..=1)[0]));
        let (seat, _) = ring.join();
        ring.begin(5);
        (ring, seat)
    }

    #[test]
    fn what_was_pushed_is_found_behind_any_revision() {
        let (mut ring, seat) = begun();
        assert_eq!(ring.look(seat, 0, 5), Look::Nothing);
        ring.push(5, entries(6..=9));
        assert_eq!(taken(ring.look(seat, 0, 5)), [6, 7, 8, 9]);
        assert_eq!(taken(ring.look(seat, 0, 8)), [9]);
        assert_eq!(ring.look(seat, 0, 9), Look::Nothing);
        assert_eq!(ring.look(seat, 0, 12), Look::Nothing, "the store was asked and is ahead");
    }

    #[test]
    fn the_oldest_make_room_and_who_needs_them_is_too_slow() {
        let (mut ring, seat) = begun();
        let (new, _) = ring.join();
        assert_eq!(ring.look(seat, 0, 5), Look::Nothing);
        ring.push(5, entries(6..=20));
        assert!(ring.bytes <= ring.limit && ring.entries.len() == 10);
        assert_eq!(ring.look(seat, 0, 9), Look::TooSlow);
        assert_eq!(ring.look(new, 0, 9), Look::Elsewhere, "it reads from the store until it is here");
        assert_eq!(taken(ring.look(new, 0, 10)), (11..=20).collect::<Vec<_>>());
        ring.push(20, entries(21..=21));
        assert_eq!(ring.look(new, 0, 10), Look::TooSlow);
    }

    #[test]
    fn the_reader_works_for_watches_only() {
        let (mut ring, seat) = begun();
        assert_eq!(ring.next(), Next::Follow(5));
        ring.push(5, entries(6..=6));
        ring.leave(seat);
        assert_eq!((ring.next(), ring.bytes), (Next::Rest, 0));
        // What was still under way then is not mistaken for something new.
        ring.begin(6);
        let (seat, _) = ring.join();
        assert_eq!(ring.next(), Next::Begin);
        ring.push(6, entries(7..=7));
        assert_eq!(ring.look(seat, 0, 6), Look::Nothing);
    }

    #[test]
    fn who_was_given_up_stays_so_and_who_comes_later_is_served() {
        let (mut ring, seat) = begun();
        ring.give_up();
        let (late, epoch) = ring.join();
        ring.begin(5);
        ring.push(5, entries(6..=6));
        assert_eq!(ring.look(seat, 0, 5), Look::GivenUp);
        assert_eq!(taken(ring.look(late, epoch, 5)), [6]);
    }
}
