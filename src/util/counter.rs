//! Counters that are there before they count.

use metrics::Counter;

/// A counter at 0. A series that appears with its first event shows no increase for that event.
pub fn at_zero(counter: Counter) -> Counter {
    counter.increment(0);
    counter
}
