//! What a run prints.

use std::{
    collections::BTreeMap,
    fmt::Write,
    time::{Duration, Instant},
};

/// The outcomes of the calls of one run.
#[derive(Default)]
pub struct Summary {
    ok_micros: Vec<u32>,
    /// Calls that did not end with OK, by code.
    others: BTreeMap<u16, u64>,
    /// Calls that had no answer before their deadline.
    unanswered: usize,
    /// OK, but outside of the time that a rate is counted in.
    outside: usize,
}

impl Summary {
    pub fn add(&mut self, code: u16, began: Instant) {
        if code == 0 {
            self.ok_micros.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
        } else {
            *self.others.entry(code).or_default() += 1;
        }
    }

    pub fn add_outside(&mut self, began: Instant) {
        self.outside += 1;
        self.add(0, began);
    }

    pub fn add_unanswered(&mut self) {
        self.unanswered += 1;
    }

    /// One JSON object.
    pub fn line(mut self, took: Duration) -> String {
        self.ok_micros.sort_unstable();
        let seconds = took.as_secs_f64();
        let calls = self.ok_micros.len();
        let mut line = format!("{{\"calls\": {calls}, \"seconds\": {seconds:.3}");
        for (name, per_mille) in [("p50_us", 500), ("p99_us", 990), ("p999_us", 999)] {
            let at = (calls * per_mille / 1_000).min(calls.saturating_sub(1));
            let micros = self.ok_micros.get(at).copied().unwrap_or_default();
            write!(line, ", \"{name}\": {micros}").expect("a String takes everything");
        }
        let (unanswered, outside) = (self.unanswered, self.outside);
        let others: Vec<String> = self.others.iter().map(|(code, n)| format!("\"{code}\": {n}")).collect();
        write!(
            line,
            ", \"unanswered\": {unanswered}, \"outside\": {outside}, \"others\": {{{}}}}}",
            others.join(", ")
        )
        .expect("a String takes everything");
        line
    }
}
