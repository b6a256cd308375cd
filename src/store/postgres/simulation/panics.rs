//! A panic at each step of a batch in turn, and at each of its awaits, without any other fault
//! but, in one test, a commit whose answer is lost.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{join, time};

use super::{
    Bug,
    database::{Database, Shared},
    history_checker::{Event, Seen, check},
    replica::{Actors, Running, ask},
    tables,
};
use crate::{
    domain::{Change, Error, Fields, UserId, Write},
    telemetry::testing::recorded,
    util::{
        actor::{Actor, as_actor},
        fault_point::testing::{arm, disarm},
        simulation::{self, is_quiet},
    },
};

/// More steps than a batch has.
const MAX_STEPS: usize = 1_000;

/// They differ in how long the server takes, and in the order of polls.
const SEEDS: u64 = 4;

/// How long writes may fail after a panic, on the clock of the simulation: until there is
/// another connection.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Creates a user, and notes what came of it.
async fn create(shared: &Shared, name: &str, events: &Mutex<Vec<Event>>) -> Result<u64, Error> {
    let fields = Fields::example(&format!("{name}@example.com"));
    let fields = Fields { name: crate::domain::Name::parse(name).unwrap(), ..fields };
    let change = Change::Create { id: UserId::parse(name).unwrap(), fields };
    let begun = time::Instant::now().into_std();
    let answer = ask(shared, 0, Write { change, idempotency: None, validate_only: false }).await;
    let ended = time::Instant::now().into_std();
    let seen = match &answer {
        Ok(revision) => Seen::Wrote { name: name.to_owned(), revision: *revision },
        Err(Error::OutcomeUnknown) => Seen::Unknown,
        Err(_) => Seen::Failed { name: name.to_owned() },
    };
    events.lock().unwrap().push(Event { begun, ended, known: 0, seen });
    answer
}

/// Two writes of one batch that panics at this step, one that is queued during it, and one after
/// that; whether the step was not reached.
async fn write_around(plan: Plan, shared: &Shared, events: &Mutex<Vec<Event>>) -> bool {
    let Plan { seed, step, cuts, has_limits } = plan;
    let actor = |slot: u64| Actor::new(seed, slot, "replica");
    let actors = Actors { keeper: actor(1), writer: actor(2), server: actor(3) };
    while !is_quiet() {
        Actor::pause(100..=100).await;
    }
    shared.lock().unwrap().has_limits = has_limits;
    let replica = Running::start(shared, 0, &actors, seed);
    Actor::pause(20..=20).await;
    create(shared, "before", events).await.expect("nothing is wrong yet");
    shared.lock().unwrap().cuts_next_commit = cuts;
    arm(step);
    let queued = async {
        Actor::pause(1..=1).await;
        create(shared, "queued", events).await
    };
    let told = join!(create(shared, "one", events), create(shared, "two", events), queued);
    let is_done = disarm();
    if is_done {
        assert!(told.0.is_ok() && told.1.is_ok() && told.2.is_ok(), "without a panic: {told:?}");
    }
    let recovered = async {
        for number in 0.. {
            // What failed is not repeated, so that each name is written once.
            match create(shared, &format!("after-{number}"), events).await {
                Ok(_) => break,
                Err(error) => assert!(matches!(error, Error::Unavailable(_)), "step {step}: {error:?}"),
            }
            Actor::pause(1..=1).await;
        }
    };
    time::timeout(RECOVERY_TIMEOUT, recovered).await.expect("writes go on after a panic");
    shared.lock().unwrap().queues[0].close();
    replica.writer.await.expect("the writer outlives a panic");
    replica.keeper.abort();
    is_done
}

/// Which panic to try.
#[derive(Clone, Copy)]
struct Plan {
    seed: u64,
    step: usize,
    /// Whether the answer to the commit is lost.
    cuts: bool,
    /// Whether the session allows a batch of one statement.
    has_limits: bool,
}

/// Panics at each step in turn, until the batch has none that was not tried, for some seeds; how
/// many steps that were at least.
fn panic_at_each_step(cuts: bool, has_limits: bool) -> usize {
    let plans = (0..SEEDS).map(|seed| Plan { seed, step: 1, cuts, has_limits });
    plans.map(panic_at_each_step_of).min().expect("there are seeds")
}

fn panic_at_each_step_of(first: Plan) -> usize {
    let seed = first.seed;
    for step in 1..MAX_STEPS {
        let shared = Arc::new(Mutex::new(Database::new(Bug::None)));
        let events = Mutex::default();
        let mut is_done = false;
        let gauges = recorded(|| {
            is_done = simulation::run(async {
                let plan = Plan { step, ..first };
                as_actor(Actor::new(seed, 0, "tester"), write_around(plan, &shared, &events)).await
            });
        });
        let (changes, users) = tables(&shared.lock().unwrap());
        assert_eq!(shared.lock().unwrap().joined, 0, "seed {seed}, step {step}: a batch joined another one");
        let wrong = check(&changes, &users, &events.into_inner().unwrap());
        assert!(wrong.is_empty(), "seed {seed}, step {step}: {wrong:?}");
        assert_eq!(users.contains_key("one"), users.contains_key("two"), "step {step}: half a batch");
        let waiting = gauges.iter().find(|line| line.starts_with("user_service_store_queue_depth"));
        assert_eq!(waiting, None, "step {step}: a write has no end");
        let panics = gauges.iter().any(|line| line == "user_service_store_writer_panics_total 1");
        assert_eq!(panics, !is_done, "seed {seed}, step {step}: {gauges:?}");
        if is_done {
            return step - 1;
        }
    }
    panic!("a batch has no end");
}

#[test]
fn a_panic_at_any_step_of_a_batch_costs_that_batch_only() {
    let steps = panic_at_each_step(false, false);
    println!("a panic at each of {steps} steps");
    assert!(steps > 15, "{steps} steps only");
}

#[test]
fn a_panic_at_any_step_of_a_batch_of_one_statement_costs_that_batch_only() {
    let steps = panic_at_each_step(false, true);
    println!("a panic at each of {steps} steps");
    assert!(steps > 10, "{steps} steps only");
    let in_doubt = panic_at_each_step(true, true);
    assert!(in_doubt > steps, "{in_doubt} steps only");
}

#[test]
fn a_panic_at_any_step_of_finding_out_about_a_commit_costs_that_batch_only() {
    let (plain, in_doubt) = (panic_at_each_step(false, false), panic_at_each_step(true, false));
    println!("a panic at each of {in_doubt} steps");
    assert!(in_doubt > plain, "{in_doubt} steps only");
}
