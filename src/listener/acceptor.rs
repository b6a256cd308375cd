//! Taking connections from the port, and sharing them out among the threads.

use std::{
    io::{self, ErrorKind},
    net::TcpStream,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use rustix::io::Errno;
use tokio::{
    net::TcpListener,
    select,
    sync::{Semaphore, oneshot},
    time::{Instant, sleep},
};

use super::{
    lingering_close::bound_unsent,
    metrics::ListenerMetrics,
    serving_thread::{Accepted, ConnectionPermit, SocketSender},
};

/// The most connections taken from the kernel's queue when accepting ends.
const MAX_SWEPT_CONNECTIONS: usize = 4_096;

/// The accept loop.
pub struct Acceptor {
    pub listener: TcpListener,
    pub dispatcher: Dispatcher,
}

/// Where accepted connections go.
pub struct Dispatcher {
    pub threads: Vec<SocketSender>,
    pub permits: Arc<Semaphore>,
    pub metrics: Arc<ListenerMetrics>,
}

impl Acceptor {
    /// Accepts until told to stop, then closes the port.
    pub async fn run(self, mut stop: oneshot::Receiver<()>) {
        let mut backoff = Backoff::default();
        let mut throttle = WarningThrottle::default();
        loop {
            let accepted = select! {
                biased;
                _ = &mut stop => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    backoff = Backoff::default();
                    self.dispatcher.dispatch(stream.into_std(), &mut throttle);
                }
                Err(error) if is_of_one_peer(&error) => {}
                Err(error) => {
                    self.dispatcher.metrics.accept_errors.increment(1);
                    let pause = backoff.next();
                    if throttle.due() {
                        tracing::warn!(%error, "connections cannot be accepted; trying again");
                    }
                    // A stop does not wait for the pause.
                    select! { _ = &mut stop => break, () = sleep(pause) => {} }
                }
            }
        }
        self.sweep(&mut throttle);
    }

    /// Takes what waits in the kernel's queue: those peers believe that they are
    /// connected, and closing the port would reset them.
    fn sweep(self, throttle: &mut WarningThrottle) {
        let Self { listener, dispatcher } = self;
        let Ok(listener) = listener.into_std() else { return };
        for _ in 0..MAX_SWEPT_CONNECTIONS {
            let Ok((stream, _)) = listener.accept() else { break };
            dispatcher.dispatch(stream.set_nonblocking(true).map(|()| stream), throttle);
        }
    }
}

impl Dispatcher {
    /// Gives a connection to the thread with the fewest. Over the cap it is closed
    /// rather than left to wait in the kernel's queue: a peer in the queue believes
    /// that it is connected and its calls hang, while a peer that is refused goes to
    /// another replica. Seats held by the silent come free by the handshake deadline
    /// and the idle time.
    fn dispatch(&self, stream: io::Result<TcpStream>, throttle: &mut WarningThrottle) {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            self.metrics.refused.increment(1);
            if throttle.due() {
                tracing::warn!("connections are refused: max_connections is reached");
            }
            return;
        };
        let fewest =
            |thread: &&SocketSender| (thread.load.connections.load(Relaxed), thread.load.calls.load(Relaxed));
        let Some(thread) = self.threads.iter().min_by_key(fewest) else { return };
        let Ok(stream) = stream else { return };
        // gRPC writes small frames and waits for the answer. It fails on a peer that
        // has left already, which its first read will tell.
        let _ = stream.set_nodelay(true);
        bound_unsent(&stream);
        self.metrics.accepted.increment(1);
        let permit = ConnectionPermit::take(&thread.load, permit);
        if thread.sockets.send(Accepted { stream, permit }).is_err() && throttle.due() {
            tracing::error!("a serving thread has ended");
        }
    }
}

/// Errors that accept(2) passes on from the connection it would have returned: the
/// next one may be well.
fn is_of_one_peer(error: &io::Error) -> bool {
    const PEERS: [Errno; 7] = [
        Errno::CONNABORTED,
        Errno::PROTO,
        Errno::NETDOWN,
        Errno::NETUNREACH,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
        Errno::NONET,
    ];
    error.kind() == ErrorKind::ConnectionReset
        || PEERS.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// The pauses while descriptors or memory are short: without them the loop would
/// spin on a port that stays readable.
#[derive(Default)]
struct Backoff(u32);

impl Backoff {
    const FIRST_PAUSE: Duration = Duration::from_millis(5);
    const MAX_PAUSE: Duration = Duration::from_secs(1);

    fn next(&mut self) -> Duration {
        let pause = Self::FIRST_PAUSE.saturating_mul(1 << self.0.min(16));
        self.0 += 1;
        pause.min(Self::MAX_PAUSE)
    }
}

/// Lets a warning through once in a while: who causes them could flood the log.
#[derive(Default)]
struct WarningThrottle(Option<Instant>);

impl WarningThrottle {
    const INTERVAL: Duration = Duration::from_secs(10);

    fn due(&mut self) -> bool {
        let due = self.0.is_none_or(|last| last.elapsed() >= Self::INTERVAL);
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_second() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..40).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(pauses[..9], [5, 10, 20, 40, 80, 160, 320, 640, 1_000]);
        assert!(pauses[9..].iter().all(|pause| *pause == 1_000));
    }

    #[test]
    fn a_lack_of_descriptors_is_no_fault_of_a_peer() {
        assert!(!is_of_one_peer(&Errno::MFILE.into()));
        assert!(!is_of_one_peer(&Errno::NFILE.into()));
        assert!(!is_of_one_peer(&Errno::NOMEM.into()));
        assert!(is_of_one_peer(&Errno::CONNABORTED.into()));
    }

    #[tokio::test(start_paused = true)]
    async fn warnings_come_once_in_ten_seconds() {
        let mut throttle = WarningThrottle::default();
        assert!(throttle.due());
        assert!(!throttle.due());
        tokio::time::advance(WarningThrottle::INTERVAL).await;
        assert!(throttle.due());
    }
}
