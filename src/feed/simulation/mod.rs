//! A simulation of watches by seed: the real feed and the real watches over a simulated
//! database, on a clock that stands still while there is work.
//!
//! A seed decides which call to the database is slow, fails, or loses its answer, which
//! replica restarts, which entries are pruned, and when a backup is restored. Each watcher compares
//! what it was told with the history of the database. The same seed makes the same log.
//!
//! Tokio wakes the tasks of one moment in no fixed order. So each actor has its own generator
//! and its own moments ([`Actor::pause`]).

mod database;
mod watcher;

use std::sync::{Arc, Mutex};

use self::{
    database::{Bug, Database, Shared},
    watcher::Watcher,
};
use crate::util::{
    actor::{Actor, as_actor},
    simulation::{self, is_quiet, seeds},
};

/// Until when every watcher must have caught up, in milliseconds.
const END_MS: u64 = 60_000;

const REPLICAS: usize = 2;
const WRITERS: u64 = 2;
const WATCHERS: u64 = 4;

/// What happened, in its order; and what must not have happened.
pub struct Outcome {
    log: Vec<String>,
    wrong: Vec<String>,
}

fn simulate(seed: u64, bug: Bug) -> Outcome {
    let shared = Arc::new(Mutex::new(Database::new(bug)));
    simulation::run(async {
        let mut slots = 0..;
        let mut actor = |name: &str| Actor::new(seed, slots.next().unwrap(), name);
        // The slots of the readers, one for each replica.
        let readers: Vec<_> = (0..REPLICAS).map(|n| actor(&format!("reader {n}"))).collect();
        for (number, reader) in readers.iter().enumerate() {
            database::start_replica(&shared, number, reader);
        }
        let mut writers: Vec<_> = (0..WRITERS)
            .map(|n| tokio::spawn(as_actor(actor(&format!("writer {n}")), write(Arc::clone(&shared)))))
            .collect();
        writers.push(tokio::spawn(as_actor(actor("operator"), operate(Arc::clone(&shared), readers))));
        let watchers: Vec<_> = (0..WATCHERS)
            .map(|n| {
                let watcher = Watcher::new(Arc::clone(&shared));
                tokio::spawn(as_actor(actor(&format!("watcher {n}")), watcher.run()))
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        for watcher in watchers {
            watcher.await.unwrap();
        }
        database::stop_replicas(&shared);
    });
    let database = Arc::into_inner(shared).expect("every task has ended").into_inner().unwrap();
    Outcome { log: database.log.lines(), wrong: database.wrong }
}

/// Writes one user after the other.
async fn write(shared: Shared) {
    while !is_quiet() {
        Actor::pause(1..=20).await;
        let (id, delete) = Actor::draw(|random| (random.u8(..16), random.u8(..3) == 0));
        database::write(&shared, id, delete).await;
    }
}

/// Prunes, restarts replicas, takes backups and restores them.
async fn operate(shared: Shared, readers: Vec<Actor>) {
    while !is_quiet() {
        Actor::pause(1..=100).await;
        match Actor::draw(|random| random.u8(..20)) {
            0..=5 => {
                let kept = Actor::draw(|random| random.usize(1..40));
                shared.lock().unwrap().prune(kept);
            }
            6..=9 => {
                let replica = Actor::draw(|random| random.usize(..REPLICAS));
                database::start_replica(&shared, replica, &readers[replica]);
            }
            10..=12 => shared.lock().unwrap().take_backup(),
            13 | 14 => {
                database::stop_replicas(&shared);
                shared.lock().unwrap().restore();
                Actor::pause(1..=100).await;
                for (number, reader) in readers.iter().enumerate() {
                    database::start_replica(&shared, number, reader);
                }
            }
            _ => {}
        }
    }
}

/// Fails where a seed has told a watcher anything wrong.
fn check(seeds: impl IntoIterator<Item = u64>) {
    for seed in seeds {
        let Outcome { log, wrong } = simulate(seed, Bug::None);
        assert!(wrong.is_empty(), "seed {seed}: {}\n{}", wrong.join("\n"), log.join("\n"));
        let caught_up = log.iter().filter(|line| line.ends_with("caught up")).count();
        assert!(caught_up >= 4, "seed {seed}: a watcher was never told that it has caught up");
    }
}

#[test]
fn simulated_watches_are_told_the_history_and_nothing_else() {
    check(0..seeds());
}

#[test]
fn a_seed_makes_the_same_log_twice() {
    simulation::assert_each_seed_has_its_log(300, |seed| simulate(seed, Bug::None).log);
}

/// Some seed finds a bug that was put in.
fn assert_caught(bug: Bug, what: &str) {
    let found = (0..500).find(|seed| simulate(*seed, bug).wrong.iter().any(|wrong| wrong.contains(what)));
    assert!(found.is_some(), "{bug:?} is not caught");
}

#[test]
fn a_token_that_is_one_short_is_caught() {
    assert_caught(Bug::TokenOneShort, "repeated");
}

#[test]
fn a_token_without_the_age_of_its_users_is_caught_after_a_restore() {
    assert_caught(Bug::NothingSeen, "skipped");
}

#[test]
fn revisions_of_a_sequence_are_caught() {
    assert_caught(Bug::Sequence, "skipped");
}

#[test]
fn a_position_without_its_time_is_caught_after_a_restore() {
    assert_caught(Bug::NoTimes, "resumed");
}

#[test]
fn a_revision_that_is_announced_before_its_commit_is_caught() {
    assert_caught(Bug::EarlyAnswer, "expired without a cause");
}
