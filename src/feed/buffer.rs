//! The latest entries of the change log, and the position of each subscription.

use std::{collections::VecDeque, sync::Arc};

use slab::Slab;

use super::metrics::FeedMetrics;
use crate::domain::{Entry, Event, Revision};

/// The most entries of one fetch. They stay alive until they are sent, even if the
/// buffer has dropped them.
const MAX_ENTRIES_PER_FETCH: usize = 32;

pub(super) struct ChangeBuffer {
    /// In the order of their revisions, without gaps, up to `newest`.
    entries: VecDeque<Arc<Entry>>,
    /// What the entries weigh, which is kept to `limit`.
    bytes: usize,
    limit: usize,
    /// The last revision that was read; `None` while nothing is.
    newest: Option<Revision>,
    /// For each watch how far it has got, once it is served from here.
    subscriptions: Slab<Option<Revision>>,
    /// How often all watches were given up.
    epoch: u64,
}

/// What there is for the reader to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// There are no watches.
    Rest,
    Begin,
    Follow(Revision),
}

/// What there is for a watch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fetch {
    Entries(Vec<Arc<Entry>>),
    Nothing,
    /// What it wants is not here yet, or any more: the store has it.
    TooOld,
    /// It was served from here and has fallen behind.
    TooSlow,
    /// Nothing more comes for this watch.
    Closed,
}

impl ChangeBuffer {
    pub fn new(limit: usize) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, limit, newest: None, subscriptions: Slab::new(), epoch: 0 }
    }

    pub fn next(&self) -> Next {
        match self.newest {
            _ if self.subscriptions.is_empty() => Next::Rest,
            None => Next::Begin,
            Some(newest) => Next::Follow(newest),
        }
    }

    /// Starts the buffer after this revision, unless the last watch has left.
    pub fn begin(&mut self, newest: Revision) {
        if !self.subscriptions.is_empty() {
            self.newest = Some(newest);
        }
    }

    /// Adds the entries that were read after a revision, if the buffer still ends there.
    pub fn push(&mut self, after: Revision, entries: Vec<Entry>) {
        if self.newest != Some(after) {
            return;
        }
        self.newest = entries.last().map(|last| last.position.revision);
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

    pub fn close_subscriptions(&mut self) {
        self.epoch += 1;
        self.clear();
    }

    /// A new subscription's number, and the epoch that it belongs to.
    pub fn join(&mut self) -> (usize, u64) {
        (self.subscriptions.insert(None), self.epoch)
    }

    pub fn leave(&mut self, subscription: usize) {
        self.subscriptions.remove(subscription);
        if self.subscriptions.is_empty() {
            self.clear();
        }
    }

    /// The entries after a revision for one subscription.
    pub fn fetch(&mut self, subscription: usize, epoch: u64, after: Revision) -> Fetch {
        if epoch != self.epoch {
            return Fetch::Closed;
        }
        let Some(newest) = self.newest else { return Fetch::Nothing };
        let is_served = &mut self.subscriptions[subscription];
        if after >= newest {
            *is_served = Some(after);
            return Fetch::Nothing;
        }
        let Some(from) = usize::try_from(newest - after).ok().and_then(|n| self.entries.len().checked_sub(n))
        else {
            return if is_served.is_some() { Fetch::TooSlow } else { Fetch::TooOld };
        };
        *is_served = Some(after);
        Fetch::Entries(self.entries.range(from..).take(MAX_ENTRIES_PER_FETCH).cloned().collect())
    }

    pub fn measure(&self, metrics: &FeedMetrics) {
        let slowest = self.subscriptions.iter().filter_map(|(_, after)| *after).min();
        let behind = self.newest.zip(slowest).map_or(0, |(newest, slowest)| newest.saturating_sub(slowest));
        metrics.record_buffer(self.bytes, behind);
    }

    fn clear(&mut self) {
        // With the room that they took.
        self.entries = VecDeque::new();
        self.bytes = 0;
        self.newest = None;
    }
}

/// The size of an entry in bytes: itself, its texts, and the allocator's overhead for
/// each part.
fn weight(entry: &Entry) -> usize {
    const ALLOCATION_OVERHEAD_BYTES: usize = 16;
    let text = |text: &str| text.len() + ALLOCATION_OVERHEAD_BYTES;
    let texts = match &entry.event {
        Event::Created(user) | Event::Updated(user) => {
            text(user.id.as_str()) + user.fields.texts().into_iter().map(text).sum::<usize>()
        }
        Event::Deleted(id) => text(id.as_str()),
    };
    // Two counters stand before what an `Arc` points to, which the buffer points to.
    size_of::<Entry>() + 3 * size_of::<usize>() + ALLOCATION_OVERHEAD_BYTES + texts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{LogPosition, Timestamp, UserId};

    fn entries(revisions: std::ops::RangeInclusive<Revision>) -> Vec<Entry> {
        let event = Event::Deleted(UserId::parse("ada").unwrap());
        let log_position = |revision| LogPosition { revision, time: Timestamp::from_micros(0) };
        revisions.map(|revision| Entry { position: log_position(revision), event: event.clone() }).collect()
    }

    fn taken(fetched: Fetch) -> Vec<Revision> {
        let Fetch::Entries(entries) = fetched else { panic!("{fetched:?}") };
        entries.iter().map(|entry| entry.position.revision).collect()
    }

    /// A buffer of ten entries that was begun at revision 5.
    fn begun() -> (ChangeBuffer, usize) {
        let mut buffer = ChangeBuffer::new(10 * weight(&entries(1..=1)[0]));
        let (subscription, _) = buffer.join();
        buffer.begin(5);
        (buffer, subscription)
    }

    #[test]
    fn what_was_pushed_is_found_behind_any_revision() {
        let (mut buffer, subscription) = begun();
        assert_eq!(buffer.fetch(subscription, 0, 5), Fetch::Nothing);
        buffer.push(5, entries(6..=9));
        assert_eq!(taken(buffer.fetch(subscription, 0, 5)), [6, 7, 8, 9]);
        assert_eq!(taken(buffer.fetch(subscription, 0, 8)), [9]);
        assert_eq!(buffer.fetch(subscription, 0, 9), Fetch::Nothing);
        assert_eq!(buffer.fetch(subscription, 0, 12), Fetch::Nothing, "the store was asked and is ahead");
    }

    #[test]
    fn the_oldest_make_room_and_who_needs_them_is_too_slow() {
        let (mut buffer, subscription) = begun();
        let (new, _) = buffer.join();
        assert_eq!(buffer.fetch(subscription, 0, 5), Fetch::Nothing);
        buffer.push(5, entries(6..=20));
        assert!(buffer.bytes <= buffer.limit && buffer.entries.len() == 10);
        assert_eq!(buffer.fetch(subscription, 0, 9), Fetch::TooSlow);
        assert_eq!(buffer.fetch(new, 0, 9), Fetch::TooOld, "it reads from the store until it is here");
        assert_eq!(taken(buffer.fetch(new, 0, 10)), (11..=20).collect::<Vec<_>>());
        buffer.push(20, entries(21..=21));
        assert_eq!(buffer.fetch(new, 0, 10), Fetch::TooSlow);
    }

    #[test]
    fn the_reader_works_for_watches_only() {
        let (mut buffer, subscription) = begun();
        assert_eq!(buffer.next(), Next::Follow(5));
        buffer.push(5, entries(6..=6));
        buffer.leave(subscription);
        assert_eq!((buffer.next(), buffer.bytes), (Next::Rest, 0));
        // What was still under way then is not mistaken for something new.
        buffer.begin(6);
        let (subscription, _) = buffer.join();
        assert_eq!(buffer.next(), Next::Begin);
        buffer.push(6, entries(7..=7));
        assert_eq!(buffer.fetch(subscription, 0, 6), Fetch::Nothing);
    }

    #[test]
    fn who_was_given_up_stays_so_and_who_comes_later_is_served() {
        let (mut buffer, subscription) = begun();
        buffer.close_subscriptions();
        let (late, epoch) = buffer.join();
        buffer.begin(5);
        buffer.push(5, entries(6..=6));
        assert_eq!(buffer.fetch(subscription, 0, 5), Fetch::Closed);
        assert_eq!(taken(buffer.fetch(late, epoch, 5)), [6]);
    }
}
