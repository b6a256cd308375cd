//! Checks what many clients saw against the order that revisions give.
//!
//! The change log is the one history that happened, if it agrees with everybody:
//! each write has one place in it that real time allows, and each read saw the
//! state at some revision between the last that was known to somebody before the
//! read began and the last whose write began before the read ended.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Instant,
};

/// The parts of a user that are written: the name tells each write from all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub name: String,
    pub email: String,
}

/// One line of the change log: `None` where it deletes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    pub revision: u64,
    pub id: String,
    pub row: Option<Row>,
}

#[derive(Clone, Debug)]
pub enum Seen {
    /// A write left this user, at this revision.
    Wrote {
        name: String,
        revision: u64,
    },
    Deleted {
        id: String,
    },
    /// A read of some ids at one moment: each with its revision, where it is there.
    Read(Vec<(String, Option<(u64, Row)>)>),
    /// Said not to be applied.
    Failed {
        name: String,
    },
    /// Nobody knows.
    Unknown,
    UnknownDelete {
        id: String,
    },
}

#[derive(Clone, Debug)]
pub struct Event {
    pub begun: Instant,
    pub ended: Instant,
    /// The highest revision that anybody had been told of when this began.
    pub known: u64,
    pub seen: Seen,
}

/// What does not fit, in words.
pub fn check(log: &[Logged], users: &BTreeMap<String, (u64, Row)>, events: &[Event]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (n, logged) in log.iter().enumerate() {
        if logged.revision != n as u64 + 1 {
            wrong.push(format!("gap: revision {} is at place {}", logged.revision, n + 1));
            break;
        }
    }
    let states = States::fold(log, &mut wrong);
    if states.last() != *users {
        wrong.push("fold: the log does not add up to the table".into());
    }
    let places = Places::of(log, &mut wrong);
    let begun = begun(&places, events);
    for event in events {
        wrong.extend(states.judge(event, &places, &begun));
    }
    wrong.extend(deletes(log, events));
    wrong
}

/// Where in the log each write is, by its name.
struct Places(HashMap<String, u64>);

impl Places {
    fn of(log: &[Logged], wrong: &mut Vec<String>) -> Self {
        let mut places = HashMap::new();
        for logged in log {
            if let Some(row) = &logged.row
                && let Some(before) = places.insert(row.name.clone(), logged.revision)
            {
                wrong.push(format!("doubled: {} at {before} and {}", row.name, logged.revision));
            }
        }
        Self(places)
    }
}

/// When writes began, with the lowest revision of any that began then or later.
fn begun(places: &Places, events: &[Event]) -> Vec<(Instant, u64)> {
    let mut begun: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.seen {
            Seen::Wrote { name, .. } => places.0.get(name).map(|revision| (event.begun, *revision)),
            _ => None,
        })
        .collect();
    begun.sort_unstable();
    let mut lowest = u64::MAX;
    for (_, revision) in begun.iter_mut().rev() {
        lowest = lowest.min(*revision);
        *revision = lowest;
    }
    begun
}

/// When each id had which row: from one revision on, to before the next.
struct States<'a>(HashMap<&'a str, Vec<(u64, Option<&'a Row>)>>);

impl<'a> States<'a> {
    fn fold(log: &'a [Logged], wrong: &mut Vec<String>) -> Self {
        let mut states: HashMap<&str, Vec<(u64, Option<&Row>)>> = HashMap::new();
        let mut owners: HashMap<&str, &str> = HashMap::new();
        for logged in log {
            let id = logged.id.as_str();
            let rows = states.entry(id).or_insert_with(|| vec![(0, None)]);
            if let Some((_, Some(before))) = rows.last() {
                owners.remove(before.email.as_str());
            }
            if let Some(row) = &logged.row
                && let Some(owner) = owners.insert(&row.email, id)
            {
                wrong.push(format!("address: {id} and {owner} share one at {}", logged.revision));
            }
            rows.push((logged.revision, logged.row.as_ref()));
        }
        Self(states)
    }

    fn last(&self) -> BTreeMap<String, (u64, Row)> {
        let last = self.0.iter().filter_map(|(id, rows)| match rows.last() {
            Some((revision, Some(row))) => Some(((*id).to_owned(), (*revision, (*row).clone()))),
            _ => None,
        });
        last.collect()
    }

    fn judge(&self, event: &Event, places: &Places, begun: &[(Instant, u64)]) -> Option<String> {
        match &event.seen {
            Seen::Wrote { name, revision } => match places.0.get(name) {
                None => Some(format!("lost: {name} was acknowledged at {revision}")),
                Some(place) if place != revision => {
                    Some(format!("revision: {name} is at {place}, and was said to be at {revision}"))
                }
                Some(_) if *revision <= event.known => {
                    Some(format!("order: {name} is at {revision}, begun after {} was known", event.known))
                }
                Some(_) => None,
            },
            Seen::Failed { name } => {
                let place = places.0.get(name)?;
                Some(format!("failed: {name} is at {place}, and was said not to be applied"))
            }
            Seen::Read(seen) => {
                let later = begun.partition_point(|(begun, _)| *begun <= event.ended);
                let before = begun.get(later).map_or(u64::MAX, |(_, lowest)| *lowest);
                self.read(event.known, before, seen)
            }
            Seen::Deleted { .. } | Seen::Unknown | Seen::UnknownDelete { .. } => None,
        }
    }

    /// Whether there is one revision from `from` to before `to` with all of this.
    fn read(&self, from: u64, to: u64, seen: &[(String, Option<(u64, Row)>)]) -> Option<String> {
        let mut spans = vec![(from, to)];
        for (id, found) in seen {
            let never = vec![(0, None)];
            let rows = self.0.get(id.as_str()).unwrap_or(&never);
            let mut left = Vec::new();
            for (n, (since, row)) in rows.iter().enumerate() {
                let same = match (found, row) {
                    (None, None) => true,
                    (Some((revision, found)), Some(row)) => revision == since && found == *row,
                    _ => false,
                };
                let until = rows.get(n + 1).map_or(u64::MAX, |(next, _)| *next);
                if same {
                    let cut = spans.iter().map(|(from, to)| (*from.max(since), *to.min(&until)));
                    left.extend(cut.filter(|(from, to)| from < to));
                }
            }
            spans = left;
        }
        spans.is_empty().then(|| format!("read: {seen:?} was at no revision from {from} to before {to}"))
    }
}

/// Each acknowledged delete has a line of its own that real time allows, and what
/// is left belongs to those whose outcome nobody knows.
fn deletes(log: &[Logged], events: &[Event]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut lines: HashMap<&str, Vec<u64>> = HashMap::new();
    for logged in log.iter().filter(|logged| logged.row.is_none()) {
        lines.entry(&logged.id).or_default().push(logged.revision);
    }
    let mut told: Vec<_> = events.iter().collect();
    // The one that knew the most has the fewest lines to choose from.
    told.sort_by_key(|event| std::cmp::Reverse(event.known));
    let mut taken = HashSet::new();
    for event in told {
        let Seen::Deleted { id } = &event.seen else { continue };
        let lines = lines.get(id.as_str()).map_or(&[][..], Vec::as_slice);
        let line = lines.iter().find(|line| **line > event.known && !taken.contains(*line));
        if !line.is_some_and(|line| taken.insert(*line)) {
            wrong.push(format!("lost: a delete of {id} after {}", event.known));
        }
    }
    for (id, lines) in lines {
        let open = events
            .iter()
            .filter(|event| matches!(&event.seen, Seen::UnknownDelete { id: other } if other == id));
        let left = lines.iter().filter(|line| !taken.contains(*line)).count();
        if left > open.count() {
            wrong.push(format!("doubled: {left} deletes of {id} that nobody made"));
        }
    }
    wrong
}
