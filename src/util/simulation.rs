//! What simulations by seed share: the clock, the log, and which seeds are tried.

use std::fmt::Display;

use tokio::runtime;

use super::actor::Actor;

/// How long actors act and faults happen, in milliseconds.
const BUSY_MS: u64 = 20_000;

/// Whether that has ended.
pub fn is_quiet() -> bool {
    Actor::now() > BUSY_MS
}

/// Runs a task to its end, on a clock that stands still while there is work.
pub fn run<F: Future>(task: F) -> F::Output {
    let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(task)
}

/// What happened. Each line has its moment, and the slot of its actor.
#[derive(Default)]
pub struct Log(Vec<(u64, u64, String)>);

impl Log {
    pub fn say(&mut self, what: impl Display) {
        let (slot, name) = Actor::identity();
        self.0.push((Actor::now(), slot, format!("{name}: {what}")));
    }

    /// The lines, in the order of their moments.
    pub fn lines(mut self) -> Vec<String> {
        self.0.sort_by_key(|(time, slot, _)| (*time, *slot));
        self.0.into_iter().map(|(time, _, line)| format!("{time:>6} {line}")).collect()
    }
}

/// How many seeds are to be tried, each a simulation: `SEEDS`.
pub fn seeds() -> u64 {
    std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(25)
}

/// Fails where a seed makes two logs, two seeds make the same, or a log has few lines.
pub fn assert_each_seed_has_its_log(min_lines: usize, simulate: impl Fn(u64) -> Vec<String>) {
    for seed in 0..5 {
        let (first, second) = (simulate(seed), simulate(seed));
        let differ = first.iter().zip(&second).find(|(a, b)| a != b);
        assert_eq!(differ, None, "seed {seed}");
        assert_eq!(first.len(), second.len(), "seed {seed}");
        assert!(first.len() > min_lines, "seed {seed} has {} lines", first.len());
    }
    assert_ne!(simulate(1), simulate(2));
}
