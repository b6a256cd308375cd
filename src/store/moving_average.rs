//! Averages of times that change.

use std::time::Duration;

/// A moving average of times, and one of how far they are from it, as TCP keeps them of round
/// trips (RFC 6298). The newest time is one part in `PARTS` of the average.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MovingAverage<const PARTS: u32> {
    pub mean: Duration,
    pub deviation: Duration,
}

impl<const PARTS: u32> MovingAverage<PARTS> {
    pub fn add(&mut self, took: Duration) {
        if self.mean.is_zero() {
            // An average with no time at all would call the next ones uncertain.
            self.mean = took;
            return;
        }
        self.deviation = (self.deviation * 3 + took.abs_diff(self.mean)) / 4;
        self.mean = (self.mean * (PARTS - 1) + took) / PARTS;
    }
}
