//! What the frames of a connection may cost: a token bucket.
//!
//! Honest peers send control frames because of the answers that they get: a
//! `WINDOW_UPDATE` for what they have read, a PING to measure how fast it came. So each byte
//! that is written earns tokens, and a peer that gets answers hardly needs what the time
//! refills. An attacker gets few bytes for its frames: 17 for a PING, none for a reset.

use std::time::Duration;

use tokio::time::Instant;

use super::walker::{FrameHeader, FrameKind};

/// The most tokens. Ten thousand calls that are all cancelled cost four fifths of it.
const CAPACITY: i64 = 400_000;

/// Tokens that come with time, in a second: a hundred PINGs, or 250 cancelled calls.
const REFILL: i64 = 8_000;

/// Tokens for each byte that is written.
const EARNED: i64 = 2;

/// Tokens after which a connection is read no further before the calls that it has begun
/// are served, and other connections: those of a hundred calls that are reset.
const TURN: u32 = 3_200;

/// A DATA frame with fewer bytes than this moves hardly anything.
const TINY_BYTES: usize = 16;

const END_STREAM: u8 = 1;
const PADDED: u8 = 8;

/// What there is left for the frames of one connection.
#[derive(Debug)]
pub struct FrameBudget {
    tokens: i64,
    refilled_at: Instant,
    /// Tokens by [`FrameKind`] since the last refill.
    spent: [u32; FrameKind::ALL.len()],
    /// Tokens of the present turn.
    turn: u32,
}

impl FrameBudget {
    pub fn new(now: Instant) -> Self {
        Self { tokens: CAPACITY, refilled_at: now, spent: [0; _], turn: 0 }
    }

    /// Bytes were written to the peer.
    pub fn earn(&mut self, bytes: usize) {
        let earned = EARNED.saturating_mul(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.tokens = self.tokens.saturating_add(earned).min(CAPACITY);
    }

    /// Pays for a frame. The error is the kind that most was paid for, where nothing is
    /// left. The clock is read only then.
    pub fn pay(&mut self, header: &FrameHeader) -> Result<(), FrameKind> {
        let cost = cost(header);
        self.tokens -= i64::from(cost);
        let spent = &mut self.spent[header.kind as usize];
        *spent = spent.saturating_add(cost);
        self.turn = self.turn.saturating_add(cost);
        if self.tokens < 0 { self.refill(Instant::now()) } else { Ok(()) }
    }

    /// Whether other connections of the thread are to have their turn.
    pub fn is_turn_over(&self) -> bool {
        self.turn > TURN
    }

    pub fn begin_turn(&mut self) {
        self.turn = 0;
    }

    fn refill(&mut self, now: Instant) -> Result<(), FrameKind> {
        let passed = now.saturating_duration_since(self.refilled_at).min(Duration::from_hours(1));
        let refill = i64::try_from(passed.as_micros()).unwrap_or(i64::MAX) * REFILL / 1_000_000;
        self.tokens = (self.tokens + refill).min(CAPACITY);
        if self.tokens < 0 {
            let most = FrameKind::ALL.into_iter().max_by_key(|kind| self.spent[*kind as usize]);
            return Err(most.unwrap_or(FrameKind::Unknown));
        }
        self.refilled_at = now;
        self.spent = [0; _];
        Ok(())
    }
}

/// What a frame costs, in tokens.
fn cost(header: &FrameHeader) -> u32 {
    let ends_stream = header.flags & END_STREAM != 0;
    match header.kind {
        FrameKind::Data if header.len == 0 && !ends_stream => 80,
        FrameKind::Data if header.len == 0 || header.flags & PADDED != 0 => 8,
        FrameKind::Data if header.len < TINY_BYTES && !ends_stream => 8,
        FrameKind::Data => 0,
        FrameKind::Headers if header.len == 0 => 80,
        FrameKind::Headers => 8,
        FrameKind::Priority => 16,
        FrameKind::RstStream | FrameKind::WindowUpdate => 24,
        // The peer gets 34 tokens back for the answer, and 18 for that of a SETTINGS.
        FrameKind::Ping | FrameKind::Continuation | FrameKind::Unknown => 80,
        FrameKind::Settings | FrameKind::PushPromise | FrameKind::Goaway => 120,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an answer of one small message has: HEADERS, DATA and trailers.
    const SMALL_ANSWER_BYTES: usize = 40;
    const PONG_BYTES: usize = 17;

    fn header(kind: FrameKind, flags: u8, len: usize) -> FrameHeader {
        FrameHeader { kind, flags, stream: 1, len }
    }

    fn small(kind: FrameKind) -> FrameHeader {
        header(kind, 0, 8)
    }

    /// How many of these frames are let through without a pause, and what was blamed.
    fn until_refused(frames: &[FrameHeader], written: usize) -> (usize, FrameKind) {
        let mut budget = FrameBudget::new(Instant::now());
        for count in 0..1_000_000 {
            for frame in frames {
                if let Err(kind) = budget.pay(frame) {
                    return (count, kind);
                }
            }
            budget.earn(written);
        }
        panic!("{frames:?} are never refused");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_any_kind_ends_and_the_kind_is_named() {
        let settings_ack = 9;
        for (frame, written, most) in [
            (small(FrameKind::Ping), PONG_BYTES, 10_000),
            (small(FrameKind::Settings), settings_ack, 10_000),
            (small(FrameKind::Priority), 0, 30_000),
            // With a DATA frame of one byte for each.
            (small(FrameKind::WindowUpdate), 10, 150_000),
            (small(FrameKind::RstStream), 0, 30_000),
            (small(FrameKind::Continuation), 0, 10_000),
            (small(FrameKind::Unknown), 0, 10_000),
            (small(FrameKind::Goaway), 0, 10_000),
            (header(FrameKind::Data, 0, 0), 0, 10_000),
            (header(FrameKind::Data, 0, 1), 0, 60_000),
            (header(FrameKind::Data, PADDED, 256), 0, 60_000),
            (header(FrameKind::Headers, 4, 0), 0, 10_000),
        ] {
            let (count, blamed) = until_refused(&[frame], written);
            assert!((1_000..most).contains(&count), "{frame:?}: {count}");
            assert_eq!(blamed, frame.kind);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ten_thousand_cancelled_calls_are_honest_and_a_few_thousand_more_are_not() {
        let call = [
            header(FrameKind::Headers, 4, 80),
            header(FrameKind::Data, END_STREAM, 40),
            small(FrameKind::RstStream),
        ];
        let (count, blamed) = until_refused(&call, 0);
        assert!((10_000..15_000).contains(&count), "{count}");
        assert_eq!(blamed, FrameKind::RstStream);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_pays_for_a_ping_and_a_window_update() {
        let mut budget = FrameBudget::new(Instant::now());
        for _ in 0..100_000 {
            for frame in [
                header(FrameKind::Headers, 4, 80),
                header(FrameKind::Data, END_STREAM, 40),
                small(FrameKind::WindowUpdate),
                small(FrameKind::Ping),
            ] {
                budget.pay(&frame).expect("grpc-go sends as much");
            }
            budget.earn(SMALL_ANSWER_BYTES + PONG_BYTES);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_refills_the_budget_up_to_its_capacity() {
        let mut budget = FrameBudget::new(Instant::now());
        let ping = small(FrameKind::Ping);
        let burst = |budget: &mut FrameBudget| {
            i64::try_from((0..10_000).take_while(|_| budget.pay(&ping).is_ok()).count()).unwrap()
        };
        assert_eq!(burst(&mut budget), CAPACITY / 80);
        tokio::time::advance(Duration::from_secs(1)).await;
        let second = burst(&mut budget);
        assert!((REFILL / 80 - 2..=REFILL / 80).contains(&second), "{second}");
        tokio::time::advance(Duration::from_hours(24)).await;
        let later = burst(&mut budget);
        assert!((CAPACITY / 80..=CAPACITY / 80 + 1).contains(&later), "{later}");
    }
}
