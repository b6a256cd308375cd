//! How long a connection lives: its handshake deadline, age, idle time and grace.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use tokio::time::Instant;

use super::meter::Reason;
use crate::config::Config;

/// Longer than any process runs, and safe to add to any instant.
const FOREVER: Duration = Duration::from_hours(24 * 365 * 30);

/// How long a peer that is still shaking hands is heard once a drain began: long
/// enough for one that has just been accepted, and nothing to a silent one.
const HANDSHAKE_IN_DRAIN: Duration = Duration::from_secs(1);

/// How long a connection without calls may stay once a drain began: time enough to
/// answer the PING that follows a GOAWAY, behind which calls may be on their way.
const QUIET_IN_DRAIN: Duration = Duration::from_secs(1);

/// How long a peer may take to acknowledge what was written, at least, when its
/// connection ends.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(5);

/// The spans of a connection's life.
#[derive(Clone, Copy, Debug)]
pub struct Spans {
    handshake: Duration,
    age: Duration,
    grace: Duration,
    idle: Duration,
}

impl Spans {
    pub fn new(config: &Config) -> Self {
        let unless_zero = |span: Duration| if span.is_zero() { FOREVER } else { span };
        Self {
            handshake: unless_zero(config.handshake_timeout),
            age: unless_zero(config.max_connection_age),
            grace: config.max_connection_age_grace,
            idle: unless_zero(config.max_connection_idle),
        }
    }
}

/// What there is to do about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing before then.
    Wait(Instant),
    /// Tell the peer to go, and serve what it has begun.
    GoAway(Reason),
    Cut(Reason),
}

/// The life of one connection.
#[derive(Debug)]
pub struct Life {
    handshake_until: Instant,
    old_at: Instant,
    idle: Duration,
    grace: Duration,
    ending: Option<(Reason, Instant)>,
    drain_began: Option<Instant>,
}

impl Life {
    pub fn new(spans: &Spans, now: Instant) -> Self {
        // Connections that began together (a deployment, a reconnect) must not all
        // end together.
        let age = spans.age.min(FOREVER).mul_f64(0.9 + 0.2 * random());
        Self {
            handshake_until: now + spans.handshake.min(age).min(spans.idle),
            old_at: now + age,
            idle: spans.idle,
            grace: spans.grace,
            ending: None,
            drain_began: None,
        }
    }

    /// `idle_since` is `None` while there are calls.
    pub fn judge(&self, now: Instant, handshake_done: bool, idle_since: Option<Instant>) -> Verdict {
        if !handshake_done {
            return match self.handshake_until {
                until if until <= now => Verdict::Cut(Reason::Handshake),
                until => Verdict::Wait(until),
            };
        }
        let quiet_since = idle_since.unwrap_or(now);
        if let Some(began) = self.drain_began {
            let quiet_at = quiet_since.max(began) + QUIET_IN_DRAIN;
            return if quiet_at <= now { Verdict::Cut(Reason::Drain) } else { Verdict::Wait(quiet_at) };
        }
        if let Some((reason, until)) = self.ending {
            return if until <= now { Verdict::Cut(reason) } else { Verdict::Wait(until) };
        }
        let idle_at = quiet_since + self.idle;
        if self.old_at <= now {
            Verdict::GoAway(Reason::Age)
        } else if idle_at <= now {
            Verdict::GoAway(Reason::Idle)
        } else {
            Verdict::Wait(self.old_at.min(idle_at))
        }
    }

    /// The peer was told to go. Returns until when it may stay.
    pub fn end(&mut self, reason: Reason, now: Instant) -> Instant {
        let until = now + self.grace;
        self.ending = Some((reason, until));
        until
    }

    /// A drain began. Its own deadline cuts calls, whatever the grace.
    pub fn drain(&mut self, now: Instant) {
        self.handshake_until = self.handshake_until.min(now + HANDSHAKE_IN_DRAIN);
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
    pub fn ending(&self) -> Option<Reason> {
        self.drain_began.map(|_| Reason::Drain).or(self.ending.map(|(reason, _)| reason))
    }
}

/// From 0 to 1. The keys of the standard hash maps are random, which is all that
/// spreading ages asks for.
fn random() -> f64 {
    let bits = RandomState::new().hash_one(()) >> 32;
    f64::from(u32::try_from(bits).unwrap_or_default()) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn spans() -> Spans {
        Spans { handshake: MINUTE, age: 100 * MINUTE, grace: 2 * MINUTE, idle: 10 * MINUTE }
    }

    #[test]
    fn a_peer_that_does_not_shake_hands_is_cut_at_the_deadline() {
        let now = Instant::now();
        let life = Life::new(&spans(), now);
        assert_eq!(life.judge(now, false, Some(now)), Verdict::Wait(now + MINUTE));
        assert_eq!(life.judge(now + MINUTE, false, Some(now)), Verdict::Cut(Reason::Handshake));
        assert_eq!(life.judge(now + MINUTE, true, Some(now)), Verdict::Wait(now + 10 * MINUTE));
    }

    #[test]
    fn ages_lie_within_a_tenth_and_differ() {
        let now = Instant::now();
        let ages: Vec<_> = (0..100).map(|_| Life::new(&spans(), now).old_at - now).collect();
        let (least, most) = (ages.iter().min().unwrap(), ages.iter().max().unwrap());
        assert!(*least >= 90 * MINUTE && *most <= 110 * MINUTE, "{least:?} to {most:?}");
        assert!(*most > *least + 5 * MINUTE, "{least:?} to {most:?}");
    }

    #[test]
    fn an_old_connection_is_told_to_go_and_cut_after_its_grace() {
        let now = Instant::now();
        let mut life = Life::new(&spans(), now);
        let old = now + 110 * MINUTE;
        assert_eq!(life.judge(old, true, None), Verdict::GoAway(Reason::Age));
        life.end(Reason::Age, old);
        assert_eq!(life.judge(old, true, None), Verdict::Wait(old + 2 * MINUTE));
        assert_eq!(life.judge(old + 2 * MINUTE, true, None), Verdict::Cut(Reason::Age));
    }

    #[test]
    fn only_a_connection_without_calls_is_idle() {
        let now = Instant::now();
        let life = Life::new(&spans(), now);
        let later = now + 20 * MINUTE;
        assert_eq!(life.judge(later, true, Some(now + 10 * MINUTE)), Verdict::GoAway(Reason::Idle));
        assert_eq!(life.judge(later, true, Some(later - MINUTE)), Verdict::Wait(later + 9 * MINUTE));
        assert_eq!(life.judge(later, true, None), Verdict::Wait(later + 10 * MINUTE));
    }

    #[test]
    fn zero_switches_age_and_idle_time_off() {
        let config = Config {
            max_connection_age: Duration::ZERO,
            max_connection_idle: Duration::ZERO,
            ..Config::default()
        };
        let now = Instant::now();
        let life = Life::new(&Spans::new(&config), now);
        let Verdict::Wait(until) = life.judge(now + 10_000 * MINUTE, true, Some(now)) else {
            panic!("it ends");
        };
        assert!(until > now + FOREVER / 2);
    }

    #[test]
    fn a_drain_leaves_a_silent_peer_a_second() {
        let now = Instant::now();
        let mut life = Life::new(&spans(), now);
        life.drain(now);
        assert_eq!(life.judge(now, false, Some(now)), Verdict::Wait(now + HANDSHAKE_IN_DRAIN));
    }

    #[test]
    fn a_drain_waits_for_calls_and_a_second_for_a_peer_without_any() {
        let now = Instant::now();
        let mut life = Life::new(&spans(), now);
        life.end(Reason::Age, now);
        life.drain(now);
        assert_eq!(life.ending(), Some(Reason::Drain));
        let later = now + 5 * MINUTE;
        assert_eq!(life.judge(later, true, None), Verdict::Wait(later + QUIET_IN_DRAIN));
        assert_eq!(life.judge(later, true, Some(later)), Verdict::Wait(later + QUIET_IN_DRAIN));
        assert_eq!(life.judge(later, true, Some(later - MINUTE)), Verdict::Cut(Reason::Drain));
        assert_eq!(life.judge(now, true, Some(now - MINUTE)), Verdict::Wait(now + QUIET_IN_DRAIN));
    }
}
