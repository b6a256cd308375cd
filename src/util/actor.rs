//! Who acts when in a simulation: each actor has its own generator and its own moments.

use std::{cell::RefCell, future::Future, ops::RangeInclusive, time::Duration};

use tokio::{
    task_local,
    time::{self, Instant},
};

/// Milliseconds between two moments of one actor. Also what the feed waits for by itself
/// (100 ms, a second) is a multiple of it, so that it stays at its own moments.
const STEP_MS: u64 = 20;

task_local! {
    static ACTOR: RefCell<Actor>;
}

/// A task of the simulation. Its moments are those with its slot as their rest.
#[derive(Clone, Debug)]
pub struct Actor {
    random: fastrand::Rng,
    began: Instant,
    pub slot: u64,
    pub name: String,
}

/// Runs a task as an actor.
pub async fn as_actor<F: Future>(actor: Actor, task: F) -> F::Output {
    ACTOR.scope(RefCell::new(actor), task).await
}

impl Actor {
    pub fn new(seed: u64, slot: u64, name: &str) -> Self {
        assert!(slot < STEP_MS, "more actors than moments");
        let random = fastrand::Rng::with_seed(seed.wrapping_mul(1_000) + slot);
        Self { random, began: Instant::now(), slot, name: name.to_owned() }
    }

    /// The same actor with another generator.
    #[must_use]
    pub fn seeded(&self, seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), ..self.clone() }
    }

    /// Takes from the actor's own generator.
    pub fn draw<T>(draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        ACTOR.with(|actor| draw(&mut actor.borrow_mut().random))
    }

    /// The slot and the name.
    pub fn identity() -> (u64, String) {
        ACTOR.with(|actor| (actor.borrow().slot, actor.borrow().name.clone()))
    }

    /// Milliseconds since the beginning.
    pub fn now() -> u64 {
        ACTOR.with(|actor| u64::try_from(actor.borrow().began.elapsed().as_millis()).unwrap())
    }

    /// Waits for one of the actor's next moments.
    pub async fn pause(steps: RangeInclusive<u64>) {
        let steps = Self::draw(|random| random.u64(steps));
        time::sleep_until(Self::moment(steps)).await;
    }

    /// The moment after so many steps; the last one is not a whole step.
    pub fn moment(steps: u64) -> Instant {
        let (began, slot) = ACTOR.with(|actor| (actor.borrow().began, actor.borrow().slot));
        let whole = Self::now().saturating_sub(slot) / STEP_MS;
        began + Duration::from_millis((whole + steps) * STEP_MS + slot)
    }
}
