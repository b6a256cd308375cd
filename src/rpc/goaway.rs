//! Signals a connection's GOAWAY to its calls, so that streams end with a status.

use std::{
    collections::VecDeque,
    fmt, future,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::sync::watch;

use super::{holdings::Holdings, peer::PeerIdentity, source::Source, unread::Unread};

/// Why a connection is to go away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoAwayReason {
    /// It has reached its maximum age.
    Age,
    /// The server shuts down.
    Drain,
}

/// Called once with whether a call's answer was delivered.
pub type Settle = Box<dyn FnOnce(bool) + Send>;

/// The most answers of one connection whose delivery is waited for. A peer that goes on
/// calling after a GOAWAY could have any number.
const MAX_UNDELIVERED: usize = 1_024;

/// Tells the calls of one connection that it is to go away, and whether their answers
/// were delivered after that.
#[derive(Clone, Debug, Default)]
pub struct ConnectionHandle {
    /// The connection's number; 0 without a listener.
    pub id: u64,
    source: Option<Source>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    goaway: watch::Sender<Option<GoAwayReason>>,
    going_away: AtomicBool,
    answers: Mutex<Answers>,
    /// The answers of all connections together that are waited for.
    undelivered: Arc<AtomicUsize>,
    unread: Unread,
    peer: OnceLock<PeerIdentity>,
    holdings: Holdings,
}

#[derive(Default)]
struct Answers {
    waiting: VecDeque<Settle>,
    /// The connection is gone: an answer that is complete only now was not delivered.
    over: bool,
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").field("waiting", &self.waiting.len()).field("over", &self.over).finish()
    }
}

impl ConnectionHandle {
    /// Of the connection of this number. `undelivered` counts its answers while their
    /// delivery is waited for.
    pub fn new(id: u64, source: Option<Source>, undelivered: Arc<AtomicUsize>, holdings: Holdings) -> Self {
        let unread = Unread::of(Arc::clone(holdings.address()));
        Self { id, source, shared: Arc::new(Shared { undelivered, unread, holdings, ..Shared::default() }) }
    }

    /// What the connection holds of the limits on calls.
    pub fn holdings(&self) -> &Holdings {
        &self.shared.holdings
    }

    /// Where it comes from, where that is known.
    pub fn source(&self) -> Option<Source> {
        self.source
    }

    /// What waits on the connection to be read.
    pub fn unread(&self) -> &Unread {
        &self.shared.unread
    }

    /// The client's certificate was verified and names this identity. Set once, before
    /// the first call of the connection.
    pub fn set_peer(&self, peer: PeerIdentity) {
        let _ = self.shared.peer.set(peer);
    }

    /// Whom the client's certificate names, where it has shown one.
    pub fn peer(&self) -> Option<&PeerIdentity> {
        self.shared.peer.get()
    }

    pub fn notify(&self, reason: GoAwayReason) {
        self.shared.going_away.store(true, Relaxed);
        self.shared.goaway.send_replace(Some(reason));
    }

    /// Whether the connection is to go away. From then on, the end of a call is known
    /// only once its answer was delivered.
    pub fn is_going_away(&self) -> bool {
        self.shared.going_away.load(Relaxed)
    }

    /// The receiving half, for one call.
    pub fn subscribe(&self) -> GoAwayReceiver {
        GoAwayReceiver(self.shared.goaway.subscribe())
    }

    /// Has `settle` called once it is known whether an answer was delivered.
    pub fn on_delivery(&self, settle: Settle) {
        let (settle, delivered) = {
            let mut answers = self.answers();
            if answers.over {
                (settle, false)
            } else {
                answers.waiting.push_back(settle);
                if answers.waiting.len() <= MAX_UNDELIVERED {
                    self.shared.undelivered.fetch_add(1, Relaxed);
                    return;
                }
                let Some(oldest) = answers.waiting.pop_front() else { return };
                (oldest, true)
            }
        };
        settle(delivered);
    }

    /// The connection has delivered its answers, or has ended without. Returns how many
    /// there were.
    pub fn settle(&self, delivered: bool) -> usize {
        let waiting = {
            let mut answers = self.answers();
            answers.over = true;
            std::mem::take(&mut answers.waiting)
        };
        let count = waiting.len();
        self.shared.undelivered.fetch_sub(count, Relaxed);
        for settle in waiting {
            settle(delivered);
        }
        count
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.shared.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The receiving half of a connection's GOAWAY signal.
#[derive(Clone, Debug)]
pub struct GoAwayReceiver(watch::Receiver<Option<GoAwayReason>>);

impl GoAwayReceiver {
    /// Resolves when the connection is to go away.
    pub async fn received(&mut self) -> GoAwayReason {
        if let Ok(said) = self.0.wait_for(Option::is_some).await
            && let Some(reason) = *said
        {
            return reason;
        }
        future::pending().await
    }
}
