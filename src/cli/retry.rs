//! Tries again, with growing pauses, for as long as patience lasts.

use std::time::{Duration, Instant};

use tonic::{Code, Status};

use super::client::describe;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long one try to connect may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a call did not go to its end.
pub enum Broken {
    /// Another try may work.
    Again(String),
    Fatal(String),
}

/// What a status means to whoever may repeat the call.
impl From<Status> for Broken {
    fn from(status: Status) -> Self {
        let why = describe(&status);
        // Each error of the service has details; one without was made up on this side, of a connection
        // that broke.
        let again = match status.code() {
            Code::Unavailable | Code::Unknown => true,
            Code::Cancelled | Code::Internal => status.details().is_empty(),
            _ => false,
        };
        if again { Self::Again(why) } else { Self::Fatal(why) }
    }
}

/// The tries since it last got any further.
pub struct Retry {
    patience: Duration,
    since: Option<Instant>,
    pause: Duration,
}

impl Retry {
    pub fn new(patience: Duration) -> Self {
        Self { patience, since: None, pause: FIRST_PAUSE }
    }

    /// Something was done.
    pub fn progressed(&mut self) {
        *self = Self::new(self.patience);
    }

    /// Waits for the next try.
    ///
    /// # Errors
    /// Why there will be none.
    pub async fn pause(&mut self, broken: Broken) -> Result<(), String> {
        let why = match broken {
            Broken::Again(why) => why,
            Broken::Fatal(why) => return Err(why),
        };
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() + self.pause > self.patience {
            return Err(format!("no way on for {} ms: {why}", self.patience.as_millis()));
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}
