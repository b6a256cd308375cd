//! How long a connection lives: its handshake deadline, age, idle time and grace.

use std::time::Duration;

use tokio::time::Instant;

use super::metrics::CloseReason;
use crate::config::Config;

/// How long a connection may take hardly anything of what waits for it.
const STALLED: Duration = Duration::from_secs(10);

/// The bytes that it must take in that time. A window that is opened byte by byte lets
/// through a few.
const LEAST_TAKEN_BYTES: u64 = 64 * 1_024;

/// How often such a connection is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Longer than any process runs, and safe to add to any instant.
const FOREVER: Duration = Duration::from_hours(24 * 365 * 30);

/// How long a peer that is still shaking hands is heard once a drain began: long
/// enough for one that has just been accepted, and nothing to a silent one.
const DRAIN_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a connection without calls may stay once a drain began: time enough to
/// answer the PING that follows a GOAWAY, behind which calls may be on their way.
const DRAIN_IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a peer may take to acknowledge what was written, at least, when its
/// connection ends.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(5);

/// The spans of a connection's life.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    handshake: Duration,
    age: Duration,
    grace: Duration,
    idle: Duration,
    unresponsive: Duration,
    probe: Duration,
}

impl Timeouts {
    /// How long a peer of HTTP/1 may be silent before the kernel probes it, and how long it
    /// may not answer then.
    pub fn probes(&self) -> (Duration, Duration) {
        (self.probe, self.unresponsive)
    }

    /// How long a peer may take nothing of the bytes that wait for it.
    pub fn unresponsive(&self) -> Duration {
        self.unresponsive
    }

    pub fn new(config: &Config) -> Self {
        let unless_zero = |span: Duration| if span.is_zero() { FOREVER } else { span };
        Self {
            handshake: unless_zero(config.handshake_timeout),
            age: unless_zero(config.max_connection_age),
            grace: config.max_connection_age_grace,
            idle: unless_zero(config.max_connection_idle),
            unresponsive: config.keepalive_timeout,
            probe: unless_zero(config.keepalive_interval),
        }
    }
}

/// What there is to do about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing before then.
    Wait(Instant),
    /// Tell the peer to go, and serve what it has begun.
    GoAway(CloseReason),
    Cut(CloseReason),
}

/// The life of one connection.
#[derive(Clone, Debug)]
pub struct Lifetime {
    handshake_until: Instant,
    old_at: Instant,
    idle: Duration,
    grace: Duration,
    ending: Option<(CloseReason, Instant)>,
    drain_began: Option<Instant>,
}

impl Lifetime {
    pub fn new(timeouts: &Timeouts, now: Instant) -> Self {
        // Connections that began together (a deployment, a reconnect) must not all
        // end together.
        let age = timeouts.age.min(FOREVER).mul_f64(0.9 + 0.2 * fastrand::f64());
        Self {
            handshake_until: now + timeouts.handshake.min(age).min(timeouts.idle),
            old_at: now + age,
            idle: timeouts.idle,
            grace: timeouts.grace,
            ending: None,
            drain_began: None,
        }
    }

    /// `idle_since` is `None` while there are calls.
    pub fn next_action(&self, now: Instant, handshake_done: bool, idle_since: Option<Instant>) -> Action {
        if !handshake_done {
            return match self.handshake_until {
                until if until <= now => Action::Cut(CloseReason::Handshake),
                until => Action::Wait(until),
            };
        }
        let quiet_since = idle_since.unwrap_or(now);
        if let Some(began) = self.drain_began {
            let quiet_at = quiet_since.max(began) + DRAIN_IDLE_TIMEOUT;
            return if quiet_at <= now { Action::Cut(CloseReason::Drain) } else { Action::Wait(quiet_at) };
        }
        if let Some((reason, until)) = self.ending {
            return if until <= now { Action::Cut(reason) } else { Action::Wait(until) };
        }
        let idle_at = quiet_since + self.idle;
        if self.old_at <= now {
            Action::GoAway(CloseReason::Age)
        } else if idle_at <= now {
            Action::GoAway(CloseReason::Idle)
        } else {
            Action::Wait(self.old_at.min(idle_at))
        }
    }

    /// The peer was told to go. Returns until when it may stay.
    pub fn end(&mut self, reason: CloseReason, now: Instant) -> Instant {
        let until = now + self.grace;
        self.ending = Some((reason, until));
        until
    }

    /// A drain began. Its own deadline cuts calls, whatever the grace.
    pub fn drain(&mut self, now: Instant) {
        self.handshake_until = self.handshake_until.min(now + DRAIN_HANDSHAKE_TIMEOUT);
        self.drain_began = Some(now);
    }

    /// Until when the peer may take to acknowledge what was written. In a drain its own
    /// deadline ends that.
    pub fn acknowledged_until(&self, now: Instant) -> Instant {
        let least = now + ACKNOWLEDGED_WITHIN;
        match (self.drain_began, self.ending) {
            (Some(_), _) => now + FOREVER,
            (None, Some((_, until))) => until.max(least),
            (None, None) => least,
        }
    }

    /// Why the connection is ending, once it is.
    pub fn ending(&self) -> Option<CloseReason> {
        self.drain_began.map(|_| CloseReason::Drain).or(self.ending.map(|(reason, _)| reason))
    }
}

/// Whether a connection takes what waits for it.
#[derive(Debug, Default)]
pub struct Stall(Option<(u64, Instant)>);

impl Stall {
    /// Whether much waited when it was last asked for an action.
    pub fn is_looked_for(&self) -> bool {
        self.0.is_some()
    }

    /// When to look again, where much waits. `pressing` is whether the process cannot
    /// wait for it any longer.
    pub fn next_action(&mut self, now: Instant, taken: Option<u64>, pressing: bool) -> Option<Action> {
        let Some(taken) = taken else {
            self.0 = None;
            return None;
        };
        let (last, since) = match self.0 {
            Some((last, since)) if taken < last + LEAST_TAKEN_BYTES => (last, since),
            _ => (taken, now),
        };
        self.0 = Some((last, since));
        let stalled = pressing && since + STALLED <= now;
        Some(if stalled { Action::Cut(CloseReason::Unread) } else { Action::Wait(now + LOOK) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn timeouts() -> Timeouts {
        Timeouts {
            handshake: MINUTE,
            age: 100 * MINUTE,
            grace: 2 * MINUTE,
            idle: 10 * MINUTE,
            unresponsive: MINUTE,
            probe: MINUTE,
        }
    }

    #[test]
    fn a_peer_that_does_not_shake_hands_is_cut_at_the_deadline() {
        let now = Instant::now();
        let lifetime = Lifetime::new(&timeouts(), now);
        assert_eq!(lifetime.next_action(now, false, Some(now)), Action::Wait(now + MINUTE));
        assert_eq!(lifetime.next_action(now + MINUTE, false, Some(now)), Action::Cut(CloseReason::Handshake));
        assert_eq!(lifetime.next_action(now + MINUTE, true, Some(now)), Action::Wait(now + 10 * MINUTE));
    }

    #[test]
    fn ages_lie_within_a_tenth_and_differ() {
        let now = Instant::now();
        let ages: Vec<_> = (0..100).map(|_| Lifetime::new(&timeouts(), now).old_at - now).collect();
        let (least, most) = (ages.iter().min().unwrap(), ages.iter().max().unwrap());
        assert!(*least >= 90 * MINUTE && *most <= 110 * MINUTE, "{least:?} to {most:?}");
        assert!(*most > *least + 5 * MINUTE, "{least:?} to {most:?}");
    }

    #[test]
    fn an_old_connection_is_told_to_go_and_cut_after_its_grace() {
        let now = Instant::now();
        let mut lifetime = Lifetime::new(&timeouts(), now);
        let old = now + 110 * MINUTE;
        assert_eq!(lifetime.next_action(old, true, None), Action::GoAway(CloseReason::Age));
        lifetime.end(CloseReason::Age, old);
        assert_eq!(lifetime.next_action(old, true, None), Action::Wait(old + 2 * MINUTE));
        assert_eq!(lifetime.next_action(old + 2 * MINUTE, true, None), Action::Cut(CloseReason::Age));
    }

    #[test]
    fn only_a_connection_without_calls_is_idle() {
        let now = Instant::now();
        let lifetime = Lifetime::new(&timeouts(), now);
        let later = now + 20 * MINUTE;
        assert_eq!(
            lifetime.next_action(later, true, Some(now + 10 * MINUTE)),
            Action::GoAway(CloseReason::Idle)
        );
        assert_eq!(lifetime.next_action(later, true, Some(later - MINUTE)), Action::Wait(later + 9 * MINUTE));
        assert_eq!(lifetime.next_action(later, true, None), Action::Wait(later + 10 * MINUTE));
    }

    #[test]
    fn a_connection_that_takes_nothing_is_cut_where_others_need_the_room() {
        let now = Instant::now();
        let mut stall = Stall::default();
        let after = |span| now + span;
        assert_eq!(stall.next_action(now, None, true), None, "little waits");
        assert_eq!(stall.next_action(now, Some(1), true), Some(Action::Wait(now + LOOK)));
        let later = after(STALLED);
        assert_eq!(
            stall.next_action(later, Some(1 + LEAST_TAKEN_BYTES), true),
            Some(Action::Wait(later + LOOK)),
            "it has taken enough"
        );
        let late = after(2 * STALLED);
        let crawled = Some(2 * LEAST_TAKEN_BYTES);
        assert_eq!(stall.next_action(late, crawled, false), Some(Action::Wait(late + LOOK)), "there is room");
        assert_eq!(stall.next_action(late, crawled, true), Some(Action::Cut(CloseReason::Unread)));
    }

    #[test]
    fn zero_switches_age_and_idle_time_off() {
        let config = Config {
            max_connection_age: Duration::ZERO,
            max_connection_idle: Duration::ZERO,
            ..Config::default()
        };
        let now = Instant::now();
        let lifetime = Lifetime::new(&Timeouts::new(&config), now);
        let Action::Wait(until) = lifetime.next_action(now + 10_000 * MINUTE, true, Some(now)) else {
            panic!("it ends");
        };
        assert!(until > now + FOREVER / 2);
    }

    #[test]
    fn a_drain_leaves_a_silent_peer_a_second() {
        let now = Instant::now();
        let mut lifetime = Lifetime::new(&timeouts(), now);
        lifetime.drain(now);
        assert_eq!(lifetime.next_action(now, false, Some(now)), Action::Wait(now + DRAIN_HANDSHAKE_TIMEOUT));
    }

    #[test]
    fn a_drain_waits_for_calls_and_a_second_for_a_peer_without_any() {
        let now = Instant::now();
        let mut lifetime = Lifetime::new(&timeouts(), now);
        lifetime.end(CloseReason::Age, now);
        lifetime.drain(now);
        assert_eq!(lifetime.ending(), Some(CloseReason::Drain));
        let later = now + 5 * MINUTE;
        assert_eq!(lifetime.next_action(later, true, None), Action::Wait(later + DRAIN_IDLE_TIMEOUT));
        assert_eq!(lifetime.next_action(later, true, Some(later)), Action::Wait(later + DRAIN_IDLE_TIMEOUT));
        assert_eq!(lifetime.next_action(later, true, Some(later - MINUTE)), Action::Cut(CloseReason::Drain));
        assert_eq!(
            lifetime.next_action(now, true, Some(now - MINUTE)),
            Action::Wait(now + DRAIN_IDLE_TIMEOUT)
        );
    }
}
