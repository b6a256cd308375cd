//! Tries again, with growing pauses, until the retry timeout.

use std::time::{Duration, Instant};

use tonic::{Code, Status};

use super::console::describe;
use crate::util::backoff::Backoff;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// How long one try to connect may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a call did not go to its end.
pub enum CallError {
    /// Another try may work.
    Retryable(String),
    Fatal(String),
}

/// Classifies a status: may the call be repeated?
impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        let why = describe(&status);
        // Each error of the service has details; one without was made up on this side, of a connection
        // that broke.
        let again = match status.code() {
            Code::Unavailable | Code::Unknown => true,
            Code::Cancelled | Code::Internal => status.details().is_empty(),
            _ => false,
        };
        if again { Self::Retryable(why) } else { Self::Fatal(why) }
    }
}

/// The tries since it last got any further.
pub struct Retry {
    timeout: Duration,
    since: Option<Instant>,
    backoff: Backoff,
}

impl Retry {
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, since: None, backoff: Backoff::new(FIRST_PAUSE, MAX_PAUSE) }
    }

    /// Something was done.
    pub fn progressed(&mut self) {
        *self = Self::new(self.timeout);
    }

    /// Waits for the next try.
    ///
    /// # Errors
    /// Why there will be none.
    pub async fn pause(&mut self, broken: CallError) -> Result<(), String> {
        let why = match broken {
            CallError::Retryable(why) => why,
            CallError::Fatal(why) => return Err(why),
        };
        let since = *self.since.get_or_insert_with(Instant::now);
        let pause = self.backoff.next_pause();
        if since.elapsed() + pause > self.timeout {
            return Err(format!("gave up after {} ms without progress: {why}", self.timeout.as_millis()));
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }
}
