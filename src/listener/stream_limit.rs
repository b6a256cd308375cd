//! How many streams a connection may have, which its handshake says.
//!
//! Clients wait until a stream ends where they would have more. So connections that share
//! the limit on unary calls have none refused, and refusing costs both sides CPU. h2 cannot
//! change the number of an open connection: older connections keep theirs until they end.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::config::Config;

/// The least number of streams, unless `max_concurrent_streams` is less. RFC 9113, section
/// 6.5.2, advises against fewer, and as many are opened ahead of the SETTINGS by clients that do
/// not repeat a refused stream, such as those on hyper.
const MIN_STREAMS: u32 = 100;

/// What connections share.
#[derive(Debug)]
pub struct StreamLimit {
    max_streams: u32,
    max_unary_calls: usize,
    max_connections: usize,
    /// A permit for each connection that may still come.
    permits: Arc<Semaphore>,
}

impl StreamLimit {
    /// `permits` are those of a port without connections.
    pub fn new(config: &Config, permits: Arc<Semaphore>) -> Self {
        Self {
            max_streams: config.max_concurrent_streams,
            max_unary_calls: config.max_unary_calls,
            max_connections: permits.available_permits(),
            permits,
        }
    }

    /// Of a connection whose handshake is now, and which has its permit.
    pub fn current(&self) -> u32 {
        let connections = self.max_connections.saturating_sub(self.permits.available_permits());
        self.among(connections)
    }

    /// Of each of so many connections: its share of the limit on calls.
    fn among(&self, connections: usize) -> u32 {
        let share = self.max_unary_calls / connections.max(1);
        let least = MIN_STREAMS.min(self.max_streams);
        u32::try_from(share).unwrap_or(u32::MAX).clamp(least, self.max_streams)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(max_concurrent_streams: u32, max_unary_calls: usize) -> StreamLimit {
        let config = Config { max_concurrent_streams, max_unary_calls, ..Config::default() };
        StreamLimit::new(&config, Arc::new(Semaphore::new(10_000)))
    }

    #[test]
    fn connections_that_use_all_their_streams_have_no_call_refused_above_the_least_share() {
        for (max_streams, calls) in [(100, 2_048), (100, 64), (1, 1), (65_536, 1_048_576), (250, 1_000)] {
            let limit = limit(max_streams, calls);
            let least = limit.among(usize::MAX);
            for connections in 1..5_000 {
                let streams = limit.among(connections);
                assert!(streams <= max_streams && streams >= least);
                assert!(streams == least || streams as usize * connections <= calls);
                assert!(streams <= limit.among(connections - 1), "more connections, fewer streams");
            }
        }
    }

    #[test]
    fn few_connections_have_the_setting_and_any_number_has_100() {
        let streams = |connections| limit(1_000, 2_048).among(connections);
        assert_eq!([1, 2, 3, 10, 20, 21, 10_000].map(streams), [1_000, 1_000, 682, 204, 102, 100, 100]);
    }

    #[test]
    fn a_small_setting_is_not_divided() {
        assert_eq!([1, 99, 100, 101].map(|setting| limit(setting, 1).among(9)), [1, 99, 100, 100]);
    }

    #[test]
    fn connections_are_counted_by_their_permits() {
        let limit = limit(1_000, 800);
        let held: Vec<_> = (0..4).map(|_| limit.permits.try_acquire().unwrap()).collect();
        assert_eq!(limit.current(), 200);
        drop(held);
        assert_eq!(limit.current(), 800);
    }
}
