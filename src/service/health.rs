//! The state behind every health name. docs/API.md has the names, and while what each is
//! SERVING.
//!
//! A name goes down after `store_probe_failures` failed probes of the store in a row,
//! and one good probe brings it back.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use metrics::gauge;
use tokio::sync::watch;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::{config::Config, domain::StoreHealth};

mod protocol;

/// The name of the process's own health.
pub const LIVENESS: &str = "liveness";
/// The name of the server's readiness.
pub const READINESS: &str = "";
/// The names of the API services.
pub const USER_V1: &str = "user.v1.UserService";
pub const ARTICLE: &str = "UserService";

/// Every health name, and while what it is SERVING: docs/API.md is written from this.
static NAMES: [(&str, &str); 4] = [
    (
        LIVENESS,
        "Every serving thread has answered within the last 10 seconds. A drain and the store do not count.",
    ),
    (READINESS, "The server has started, it does not drain, and its store can be read."),
    (USER_V1, "The server is ready, and its store can be written."),
    (ARTICLE, "The same; the name is there where `article_api` is on."),
];

/// A serving thread that has not ticked for so long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// The health of this process. Clones share it.
#[derive(Clone, Debug)]
pub struct Health(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    article_api: bool,
    /// So many failed probes in a row take a name down.
    failures_to_go_down: usize,
    state: watch::Sender<State>,
    started_at: Instant,
    /// For each serving thread, when it last ticked: milliseconds since birth.
    ticks: Mutex<Vec<Arc<AtomicU64>>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    started: bool,
    draining: bool,
    streams_ended: bool,
    reads: Hysteresis,
    writes: Hysteresis,
}

/// Whether the store can do something, with hysteresis; not before the first
/// good probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Hysteresis {
    up: bool,
    failures: usize,
}

impl Hysteresis {
    fn probed(&mut self, good: bool, failures_to_go_down: usize) {
        self.failures = if good { 0 } else { self.failures.saturating_add(1) };
        self.up = good || (self.up && self.failures < failures_to_go_down);
    }
}

impl Health {
    /// Neither started nor draining, of a store that was not probed yet.
    pub fn new(config: &Config) -> Self {
        Self::starting_at(config, Instant::now())
    }

    fn starting_at(config: &Config, started_at: Instant) -> Self {
        Self(Arc::new(Inner {
            article_api: config.article_api,
            failures_to_go_down: config.store_probe_failures,
            state: watch::Sender::new(State::default()),
            started_at,
            ticks: Mutex::default(),
        }))
    }

    /// Says that the server is ready for calls, or not yet.
    pub fn set_started(&self, started: bool) {
        self.0.state.send_modify(|state| state.started = started);
    }

    /// Says that the server is about to go away: every name but `liveness` is
    /// `NOT_SERVING` from now on. Open streams go on until [`Self::end_streams`].
    pub fn set_draining(&self) {
        self.0.state.send_modify(|state| state.draining = true);
    }

    /// Ends every open Watch and reflection stream, so that connections can close.
    pub fn end_streams(&self) {
        self.0.state.send_modify(|state| {
            state.draining = true;
            state.streams_ended = true;
        });
    }

    /// Says what the store answered when it was last probed.
    pub fn set_store(&self, probe: StoreHealth) {
        self.0.state.send_if_modified(|state| {
            let before = *state;
            state.reads.probed(probe.reads, self.0.failures_to_go_down);
            state.writes.probed(probe.writes, self.0.failures_to_go_down);
            *state != before
        });
    }

    /// What serving thread number `thread` shows its life with; the thread counts
    /// from here on.
    pub fn ticker(&self, thread: usize) -> Tick {
        let mut ticks = self.0.ticks.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.millis_at(Instant::now());
        while ticks.len() <= thread {
            ticks.push(Arc::new(AtomicU64::new(now)));
        }
        let tick = Tick { started_at: self.0.started_at, last: Arc::clone(&ticks[thread]) };
        tick.tick();
        tick
    }

    /// How `name` does; `None` for a name that is not known.
    pub fn status(&self, name: &str) -> Option<ServingStatus> {
        let serving = self.serving_at(name, Instant::now())?;
        Some(if serving { ServingStatus::Serving } else { ServingStatus::NotServing })
    }

    /// Whether `name` is known and SERVING.
    pub fn is_serving(&self, name: &str) -> bool {
        self.status(name) == Some(ServingStatus::Serving)
    }

    /// Every known name.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(name, _)| *name).filter(|name| self.0.article_api || *name != ARTICLE)
    }

    /// Brings the metrics of health up to date: to be called before they are read.
    pub fn record(&self) {
        for name in self.names() {
            let label = if name == READINESS { "readiness" } else { name };
            let serving = gauge!("user_service_health_serving", "name" => label);
            serving.set(if self.is_serving(name) { 1.0 } else { 0.0 });
        }
        let draining = self.0.state.borrow().draining;
        gauge!("user_service_draining").set(if draining { 1.0 } else { 0.0 });
    }

    /// Whether open streams are to end.
    pub fn have_streams_ended(&self) -> bool {
        self.0.state.borrow().streams_ended
    }

    /// Resolves when open streams are to end.
    pub fn streams_ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut receiver = self.0.state.subscribe();
        // The sender lives as long as the process; its end would be one as well.
        async move { drop(receiver.wait_for(|state| state.streams_ended).await) }
    }

    fn serving_at(&self, name: &str, now: Instant) -> Option<bool> {
        let state = *self.0.state.borrow();
        let ready = state.started && !state.draining && state.reads.up;
        match name {
            LIVENESS => Some(self.is_live_at(now)),
            READINESS => Some(ready),
            USER_V1 => Some(ready && state.writes.up),
            ARTICLE if self.0.article_api => Some(ready && state.writes.up),
            _ => None,
        }
    }

    fn is_live_at(&self, now: Instant) -> bool {
        let now = self.millis_at(now);
        let stuck_after = u64::try_from(STUCK_AFTER.as_millis()).unwrap_or(u64::MAX);
        let ticks = self.0.ticks.lock().unwrap_or_else(PoisonError::into_inner);
        ticks.iter().all(|last| now.saturating_sub(last.load(Ordering::Relaxed)) < stuck_after)
    }

    fn millis_at(&self, at: Instant) -> u64 {
        millis_since(self.0.started_at, at)
    }
}

fn millis_since(started_at: Instant, at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(started_at).as_millis()).unwrap_or(u64::MAX)
}

/// A serving thread's sign of life.
#[derive(Clone, Debug)]
pub struct Tick {
    started_at: Instant,
    last: Arc<AtomicU64>,
}

impl Tick {
    /// The thread is alive now.
    pub fn tick(&self) {
        self.last.store(millis_since(self.started_at, Instant::now()), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
