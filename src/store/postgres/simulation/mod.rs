//! A simulation of writes to PostgreSQL by seed: the real writer, the real protocol of commits
//! and the real driver, over a simulated database, on a clock that stands still while there is
//! work.
//!
//! A seed decides which answer is late or lost, which connection is cut while its statements
//! are still on their way, when the server restarts, which replica is killed at whatever it
//! waits for, where the writer panics, and which caller goes away. The change
//! log is then compared with what the callers were told (`tests/store/history_checker.rs`).

mod database;
#[path = "../../../../tests/store/history_checker.rs"]
#[allow(dead_code, reason = "these callers read nothing")]
mod history_checker;
mod panics;
mod replica;
mod tables;
mod wire;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time;

use self::{
    database::{Database, Shared},
    history_checker::{Logged, Row, check},
    replica::Running,
};
use crate::util::{
    actor::{Actor, as_actor},
    simulation::{self, is_quiet, seeds},
};

/// How long a simulation may take on its own clock: every write is answered.
const END_TIMEOUT: Duration = Duration::from_mins(5);

const REPLICAS: usize = 2;
const CALLERS: usize = 3;

/// A bug that is put in, to see that it is caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    None,
    /// A batch that was given up is committed all the same.
    NoFence,
    /// Revisions are given out outside of transactions, without the lock.
    Sequence,
    /// A commit is answered before it is made.
    EarlyAnswer,
    /// A batch is committed by one statement though another replica was faster.
    BlindCommit,
}

struct Outcome {
    log: Vec<String>,
    wrong: Vec<String>,
    revision: i64,
    cut_batches: usize,
    /// How often a batch was sent behind one that was given up.
    joined: usize,
    /// How many batches were committed by one statement.
    alone: usize,
}

fn simulate(seed: u64, bug: Bug) -> Outcome {
    let shared = Arc::new(Mutex::new(Database::new(bug)));
    let events = simulation::run(async {
        let mut slots = 0..;
        let mut actor = |name: String| Actor::new(seed, slots.next().unwrap(), &name);
        let mut actors = Vec::new();
        let mut running = Vec::new();
        for number in 0..REPLICAS {
            let of = replica::Actors {
                keeper: actor(format!("keeper {number}")),
                writer: actor(format!("writer {number}")),
                server: actor(format!("server of {number}")),
            };
            running.push(Running::start(&shared, number, &of, seed));
            actors.push(of);
        }
        let mut callers = Vec::new();
        for replica in (0..REPLICAS).flat_map(|replica| [replica; CALLERS]) {
            let calling = replica::call(Arc::clone(&shared), replica);
            callers.push(tokio::spawn(as_actor(actor(format!("caller of {replica}")), calling)));
        }
        let operating = operate(Arc::clone(&shared), running, actors);
        let operating = tokio::spawn(as_actor(actor("operator".into()), operating));
        let ended = async {
            let mut events = Vec::new();
            for caller in callers {
                events.extend(caller.await.unwrap());
            }
            let running = operating.await.unwrap();
            for queue in &shared.lock().unwrap().queues {
                queue.close();
            }
            for replica in running {
                replica.writer.await.unwrap();
                replica.keeper.abort();
            }
            events
        };
        time::timeout(END_TIMEOUT, ended).await.expect("every write is answered")
    });
    let database = Arc::into_inner(shared).expect("every task has ended").into_inner().unwrap();
    let (changes, users) = tables(&database);
    let wrong = check(&changes, &users, &events);
    let Database { log, committed, cut_batches, joined, alone, .. } = database;
    Outcome { log: log.lines(), wrong, revision: committed.revision, cut_batches, joined, alone }
}

/// Restarts the database's server once in a while, and kills replicas.
async fn operate(shared: Shared, mut running: Vec<Running>, actors: Vec<replica::Actors>) -> Vec<Running> {
    while !is_quiet() {
        Actor::pause(1..=200).await;
        let (killed, seed) = Actor::draw(|random| (random.usize(..2 * REPLICAS), random.u64(..u64::MAX / 2)));
        if killed < REPLICAS {
            running[killed].kill();
            shared.lock().unwrap().say(format!("kills {killed}"));
            Actor::pause(1..=20).await;
            running[killed] = Running::start(&shared, killed, &actors[killed], seed);
        } else {
            shared.lock().unwrap().restart();
        }
    }
    running
}

/// The change log and the table, for the checker.
fn tables(database: &Database) -> (Vec<Logged>, BTreeMap<String, (u64, Row)>) {
    let row = |image: &String| {
        let image: serde_json::Value = serde_json::from_str(image).unwrap();
        let text = |field: &str| image[field].as_str().unwrap().to_owned();
        Row { name: text("name"), email: text("email") }
    };
    let changes = database.committed.changes.iter().map(|(revision, change)| Logged {
        revision: revision.cast_unsigned(),
        id: change.id.clone(),
        row: change.image.as_ref().map(row),
    });
    let users = database.committed.users.values().map(|user| {
        let row = Row { name: user.text("name").clone(), email: user.text("email").clone() };
        (user.text("id").clone(), (user.revision().cast_unsigned(), row))
    });
    (changes.collect(), users.collect())
}

#[test]
fn simulated_commits_are_what_their_callers_were_told() {
    let (mut revisions, mut restarts, mut of_one_statement) = (0, 0, 0);
    for seed in 0..seeds() {
        let Outcome { log, wrong, revision, cut_batches, joined, alone } = simulate(seed, Bug::None);
        assert!(wrong.is_empty(), "seed {seed}: {}\n{}", wrong.join("\n"), log.join("\n"));
        assert_eq!(joined, 0, "seed {seed}: batches that joined a transaction\n{}", log.join("\n"));
        revisions += revision;
        restarts += cut_batches;
        of_one_statement += alone;
    }
    println!("{} seeds: {revisions} writes, {restarts} restarts of the database within a batch", seeds());
    println!("{of_one_statement} batches of one statement");
    assert!(restarts > 0, "no restart was within a batch");
    assert!(
        of_one_statement > usize::try_from(seeds()).unwrap(),
        "{of_one_statement} batches of one statement only"
    );
    assert!(revisions > 20 * seeds().cast_signed(), "{revisions} writes only");
}

#[test]
fn a_seed_makes_the_same_log_twice() {
    simulation::assert_each_seed_has_its_log(100, |seed| simulate(seed, Bug::None).log);
}

/// So many seeds find a bug that was put in.
fn assert_caught(bug: Bug, what: &str) {
    let found: Vec<_> = (0..20).flat_map(|seed| simulate(seed, bug).wrong).collect();
    assert!(found.iter().any(|wrong| wrong.starts_with(what)), "{bug:?} is not caught: {found:#?}");
}

#[test]
fn a_commit_without_a_fence_is_caught() {
    assert_caught(Bug::NoFence, "failed");
}

#[test]
fn a_statement_that_commits_in_spite_of_another_replica_is_caught() {
    assert_caught(Bug::BlindCommit, "revision");
}

#[test]
fn revisions_of_a_sequence_are_caught() {
    assert_caught(Bug::Sequence, "gap");
}

#[test]
fn a_commit_that_is_answered_early_is_caught() {
    assert_caught(Bug::EarlyAnswer, "lost");
}
