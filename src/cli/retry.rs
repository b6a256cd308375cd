//! Tries again, with growing pauses, until the retry timeout.
//!
//! A server that refuses a call says when to repeat it. No try comes earlier, so a command
//! adds nothing to an overload.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::console::describe;
use crate::util::backoff::Backoff;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// How long a try may take that begins when the time is up: some round trips over a long line.
const LAST_TRY: Duration = Duration::from_secs(1);

/// How long one try to connect may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a call did not go to its end.
#[derive(Debug, PartialEq, Eq)]
pub enum CallError {
    /// Another try may work.
    Retryable(String),
    /// Another try may work once this time has passed, the server says.
    RetryableAfter(Duration, String),
    Fatal(String),
}

/// Classifies a status: may the call be repeated, and when?
impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        let why = describe(&status);
        if let Some(delay) = retry_delay(&status) {
            return Self::RetryableAfter(delay, why);
        }
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

/// When the server wants the call again. A proxy that adds no details may have gRPC's own trailer.
fn retry_delay(status: &Status) -> Option<Duration> {
    let of_trailer = || {
        let millis = status.metadata().get("grpc-retry-pushback-ms")?.to_str().ok()?;
        millis.parse().ok().map(Duration::from_millis)
    };
    status.get_details_retry_info().and_then(|info| info.retry_delay).or_else(of_trailer)
}

/// The tries since it last got any further.
pub struct Retry {
    timeout: Duration,
    /// When the first try began, or ended, that got no further.
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

    /// Begins a call: connects and awaits a first answer. A peer that takes a connection and says
    /// nothing has the time that is left, and no more.
    ///
    /// # Errors
    /// Those of the call, and that time is up.
    pub async fn begin<T>(
        &mut self,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        let (began, limit) = (Instant::now(), self.left().max(LAST_TRY));
        let answer = timeout(limit, call).await.unwrap_or_else(|_| {
            Err(CallError::Retryable(format!("no answer within {} ms", limit.as_millis())))
        });
        if answer.is_err() {
            self.since.get_or_insert(began);
        }
        answer
    }

    /// The time in which it has to get any further.
    fn left(&self) -> Duration {
        self.timeout.saturating_sub(self.since.map_or(Duration::ZERO, |since| since.elapsed()))
    }

    /// Waits for the next try. The last one begins when the time is up.
    ///
    /// # Errors
    /// Why there will be none.
    pub async fn pause(&mut self, broken: CallError) -> Result<(), String> {
        let (asked, why) = match broken {
            CallError::Retryable(why) => (Duration::ZERO, why),
            CallError::RetryableAfter(delay, why) => (delay, why),
            CallError::Fatal(why) => return Err(why),
        };
        self.since.get_or_insert_with(Instant::now);
        let left = self.left();
        // Not only what the server asks for: it may ask for nothing again and again.
        let pause = self.backoff.next_pause().min(left).max(asked);
        if left.is_zero() || asked > left {
            return Err(format!("gave up after {} ms without progress: {why}", self.timeout.as_millis()));
        }
        sleep(pause).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::rpc::status;

    /// How long a command pauses after each of these refusals.
    async fn pauses(retry: &mut Retry, refusals: impl IntoIterator<Item = Status>) -> Vec<u128> {
        let mut pauses = Vec::new();
        for refusal in refusals {
            let before = Instant::now();
            retry.pause(refusal.into()).await.unwrap();
            pauses.push(before.elapsed().as_millis());
        }
        pauses
    }

    fn overloaded(millis: u64) -> Status {
        status::overloaded_for(Duration::from_millis(millis))
    }

    #[tokio::test(start_paused = true)]
    async fn no_try_comes_before_the_time_that_the_server_asks_for() {
        let mut retry = Retry::new(Duration::from_mins(1));
        let refusals = [overloaded(700), overloaded(10), status::over_quota(), status::draining()];
        assert_eq!(pauses(&mut retry, refusals).await, [700, 200, 1_000, 800]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_beyond_the_retry_timeout_ends_the_command_now() {
        let mut retry = Retry::new(Duration::from_secs(1));
        let before = Instant::now();
        for millis in [2_000, u64::MAX] {
            let why = retry.pause(overloaded(millis).into()).await.unwrap_err();
            assert!(why.contains("the server is overloaded"), "{why}");
        }
        assert_eq!(before.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_try_begins_when_the_time_is_up() {
        let mut retry = Retry::new(Duration::from_secs(3));
        let began = Instant::now();
        let refused = || CallError::Retryable("refused".into());
        let why = loop {
            let tried = began.elapsed();
            if let Err(why) = retry.pause(refused()).await {
                assert_eq!(tried.as_millis(), 3_000);
                break why;
            }
        };
        assert_eq!(began.elapsed().as_millis(), 3_000, "{why}");
        assert_eq!(why, "gave up after 3000 ms without progress: refused");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_nothing_has_the_time_that_is_left() {
        let mut retry = Retry::new(Duration::from_secs(3));
        let began = Instant::now();
        sleep(Duration::from_millis(1_200)).await;
        retry.pause(CallError::Retryable("refused".into())).await.unwrap();
        let broken = retry.begin(pending::<Result<(), _>>()).await.unwrap_err();
        let why = retry.pause(broken).await.unwrap_err();
        assert_eq!(began.elapsed().as_millis(), 4_200, "{why}");
        // From the start of the try that was the first.
        let (mut retry, began) = (Retry::new(Duration::from_secs(3)), Instant::now());
        let broken = retry.begin(pending::<Result<(), _>>()).await.unwrap_err();
        let why = retry.pause(broken).await.unwrap_err();
        assert_eq!(began.elapsed().as_millis(), 3_000, "{why}");
        assert_eq!(why, "gave up after 3000 ms without progress: no answer within 3000 ms");
    }

    #[test]
    fn the_trailer_of_grpc_says_the_same_where_there_are_no_details() {
        let mut refused = Status::unavailable("busy");
        let pushback = |refused: &Status| CallError::from(refused.clone());
        assert_eq!(pushback(&refused), CallError::Retryable("Unavailable: busy".into()));
        refused.metadata_mut().insert("grpc-retry-pushback-ms", "250".parse().unwrap());
        let asked = CallError::RetryableAfter(Duration::from_millis(250), "Unavailable: busy".into());
        assert_eq!(pushback(&refused), asked);
    }

    #[test]
    fn an_error_that_names_no_time_is_not_repeated() {
        let error = CallError::from(status::message_too_large(1));
        assert!(matches!(error, CallError::Fatal(_)), "{error:?}");
    }
}
