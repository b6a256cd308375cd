//! How many connections this process may hold.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a connection count is when the system sets no limit on descriptors.
const UNLIMITED_CONNECTIONS: usize = 1_000_000;

/// The most open connections: the configured number, or 80% of the descriptors.
/// The rest is left to the store, the admin port and telemetry.
pub fn max_connections(configured: usize) -> usize {
    let descriptors = raise_descriptor_limit();
    if configured > 0 { configured } else { share_of(descriptors) }
}

fn share_of(descriptors: Option<u64>) -> usize {
    let share = descriptors.map(|n| usize::try_from(n / 5 * 4).unwrap_or(usize::MAX));
    share.unwrap_or(UNLIMITED_CONNECTIONS).clamp(1, UNLIMITED_CONNECTIONS)
}

/// Raises the soft limit on descriptors to the hard one, and says what it is now.
/// The soft limit is low because some programs call `select`.
fn raise_descriptor_limit() -> Option<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Refused where the hard limit is above the kernel's own: what we have stays.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_descriptors_is_left_to_others() {
        assert_eq!(share_of(Some(1_000)), 800);
        assert_eq!(share_of(Some(4)), 1);
        assert_eq!(share_of(None), UNLIMITED_CONNECTIONS);
    }

    #[test]
    fn what_is_configured_wins_and_the_soft_limit_is_raised() {
        assert_eq!(max_connections(7), 7);
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
