//! One connection, from its first byte to its last.

use std::{future::poll_fn, pin::pin, sync::Arc};

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    select,
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    CallService, ListenerPhase,
    in_flight::{ConnectionState, CountCalls, ThreadLoad},
    lifetime::{Action, Lifetime, Stall, Timeouts},
    lingering_close::{Closing, Fin, Outcome, Socket, lend, write_now},
    metrics::{CloseReason, ConnectionPhase, ListenerMetrics},
    policing::{Observed, PolicedIo},
    registry::ConnectionRegistry,
    tls::{Handshakes, Refused, Transport},
};
use crate::{
    config::Config,
    rpc::{goaway::GoAwayReason, holdings::Holdings, source::Source},
    util::registry::RegistryKey,
};

/// Unread bytes a client may send on one stream. It fits a message at its cap and
/// a part of the next, so that no honest client waits for room.
const STREAM_WINDOW_BYTES: u32 = 128 * 1_024;
/// The same over all streams of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 1_024 * 1_024;
/// Calls that were reset before hyper has taken them from h2. A burst of an honest client
/// is read in turns of a hundred or so, and a turn ends with a whole read.
const MAX_PENDING_RESETS: usize = 1_024;
/// Bytes of a response that wait in h2 for a client that does not read.
const SEND_BUFFER_BYTES: usize = 64 * 1_024;

/// How hyper is to speak HTTP/2.
pub fn http2(config: &Config) -> http2::Builder<TokioExecutor> {
    let mut http2 = http2::Builder::new(TokioExecutor::new());
    http2
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.max_concurrent_streams)
        // Calls are policed that are reset. This bounds those of one turn of reading.
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(config.max_stream_resets)
        .max_header_list_size(config.max_header_list_bytes)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval((!config.keepalive_interval.is_zero()).then_some(config.keepalive_interval))
        .keep_alive_timeout(config.keepalive_timeout)
        // No gRPC client reads it.
        .auto_date_header(false);
    http2
}

/// What every connection of one thread is served with.
pub struct ServeContext<S> {
    pub service: S,
    pub http2: http2::Builder<TokioExecutor>,
    pub timeouts: Timeouts,
    pub metrics: Arc<ListenerMetrics>,
    pub load: Arc<ThreadLoad>,
    pub phase: watch::Receiver<ListenerPhase>,
    pub registry: ConnectionRegistry,
    /// `None` where the port is plain.
    pub handshakes: Option<Handshakes>,
}

impl<S: CallService> ServeContext<S> {
    /// Serves a connection to its end, and then releases its permit. One future, because
    /// another one around it would double its size.
    pub async fn serve(
        self: Arc<Self>,
        socket: TcpStream,
        source: Option<Source>,
        held: Holdings,
        _permit: impl Sized,
    ) {
        let opened_at = Instant::now();
        let shared = Arc::new(ConnectionState::new(Arc::clone(&self.load), source, opened_at, held));
        let mut lifetime = Lifetime::new(&self.timeouts, opened_at);
        let mut metrics_guard = MetricsGuard::new(&self, Arc::clone(&shared));
        let io = match &self.handshakes {
            None => Transport::Plain(socket),
            Some(handshakes) => {
                // Boxed, because most of a connection's life is spent behind it.
                match Box::pin(handshakes.accept(socket, lifetime.clone(), self.phase.clone())).await {
                    Ok((io, peer)) => {
                        if let Some(peer) = peer {
                            shared.handle.set_peer(peer);
                        }
                        io
                    }
                    Err(Refused { told }) => return metrics_guard.refuse(told, &lifetime).await,
                }
            }
        };
        let (io, owner) = lend(io, Fin::WhenSilent);
        let (io, observed) = PolicedIo::new(io, self.timeouts.unresponsive());
        {
            let service = CountCalls::new(self.service.clone(), Arc::clone(&shared));
            let mut connection = pin!(self.http2.serve_connection(TokioIo::new(io), service));
            let mut phase = self.phase.clone();
            let mut timer = pin!(sleep_until(opened_at));
            let mut stall = Stall::default();
            loop {
                let progress = poll_fn(|cx| {
                    observed.begin_turn();
                    let progress = connection.as_mut().poll(cx);
                    metrics_guard.enter(ConnectionPhase::of(observed.is_handshake_done(), lifetime.ending()));
                    progress
                });
                select! {
                    biased;
                    end = progress => {
                        metrics_guard.reason = reason(&end, &observed, &lifetime);
                        if let Some(violation) = observed.violation() {
                            self.metrics.policed.count(violation);
                        }
                        break;
                    }
                    _ = phase.changed(), if lifetime.ending() != Some(CloseReason::Drain) => {
                        connection.as_mut().graceful_shutdown();
                        lifetime.drain(Instant::now());
                        shared.handle.notify(GoAwayReason::Drain);
                    }
                    () = timer.as_mut() => {}
                }
                let now = Instant::now();
                // What the kernel does not take is an answer, as far as is known.
                let idle_since = shared.idle_since().filter(|_| !owner.blocked());
                let unread = shared.handle.unread();
                let judged = lifetime.next_action(now, observed.is_handshake_done(), idle_since);
                let verdict = match (judged, stall.next_action(now, unread.taken(), unread.is_pressing())) {
                    (Action::Wait(until), Some(Action::Wait(look))) => Action::Wait(until.min(look)),
                    (Action::Wait(_), Some(cut)) => cut,
                    (judged, _) => judged,
                };
                match verdict {
                    Action::Wait(until) => timer.as_mut().reset(until),
                    Action::GoAway(reason) => {
                        connection.as_mut().graceful_shutdown();
                        timer.as_mut().reset(lifetime.end(reason, now));
                        shared.handle.notify(GoAwayReason::Age);
                    }
                    Action::Cut(reason) => {
                        metrics_guard.reason = reason;
                        metrics_guard.cut = true;
                        metrics_guard.count_cut(shared.calls() - shared.unsent());
                        break;
                    }
                }
            }
        }
        if let Some(mut socket) = owner.returned() {
            // h2 writes whole frames, so where the kernel has taken all there is no part of one.
            if let Some(goaway) = observed.goaway().filter(|_| !owner.blocked()) {
                write_now(&mut socket, &goaway).await;
            }
            let complete = shared.unsent() == 0 && !owner.blocked();
            metrics_guard.close(socket, complete, &lifetime).await;
        }
    }
}

/// Why a connection ended that was not cut.
fn reason(end: &hyper::Result<()>, observed: &Observed, lifetime: &Lifetime) -> CloseReason {
    if observed.violation().is_some() {
        return CloseReason::Policed;
    }
    if observed.is_gone() {
        return CloseReason::Keepalive;
    }
    if let Some(reason) = lifetime.ending() {
        return reason;
    }
    let Err(error) = end else { return CloseReason::Client };
    if error.is_timeout() {
        return CloseReason::Keepalive;
    }
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    match source {
        Some(error) if error.is_io() || error.is_remote() => CloseReason::Client,
        _ => {
            tracing::debug!(%error, ?source, "a connection failed");
            CloseReason::Error
        }
    }
}

/// Keeps the figures and the list of connections right however a connection ends.
struct MetricsGuard {
    metrics: Arc<ListenerMetrics>,
    registry: ConnectionRegistry,
    key: RegistryKey,
    shared: Arc<ConnectionState>,
    state: ConnectionPhase,
    /// Stays what it is at first only when the thread ends under the connection.
    reason: CloseReason,
    /// It was ended with what was left to do.
    cut: bool,
}

impl MetricsGuard {
    fn new<S>(context: &ServeContext<S>, shared: Arc<ConnectionState>) -> Self {
        let (metrics, registry) = (Arc::clone(&context.metrics), context.registry.clone());
        let (state, reason) = (ConnectionPhase::Handshake, CloseReason::DrainCut);
        metrics.entered(state);
        let key = registry.enter(Arc::clone(&shared));
        Self { metrics, registry, key, shared, state, reason, cut: false }
    }

    fn enter(&mut self, state: ConnectionPhase) {
        if state != self.state {
            self.metrics.left(self.state);
            self.metrics.entered(state);
            self.shared.enter(state);
            self.state = state;
        }
    }
}

impl MetricsGuard {
    /// Closes a connection whose TLS handshake failed. Without a lingering close, an RST
    /// could discard the alert that says why.
    async fn refuse(&mut self, told: Option<Transport>, lifetime: &Lifetime) {
        self.reason = CloseReason::Handshake;
        if let Some(socket) = told {
            self.reason = CloseReason::Tls;
            self.close(socket, true, lifetime).await;
        }
    }

    fn count_cut(&self, calls: usize) {
        self.metrics.calls_cut.increment(calls as u64);
    }

    /// Closes the socket. `complete` is whether all that was to be written is written.
    async fn close<T: Socket>(&mut self, socket: T, complete: bool, lifetime: &Lifetime) {
        // Nothing was said to a peer that has not shaken hands.
        if self.reason == CloseReason::Handshake {
            return;
        }
        self.enter(ConnectionPhase::Closing);
        let ConnectionState { handle, .. } = &*self.shared;
        if handle.is_going_away() && self.shared.has_served() {
            // An answer that was complete before may be among what the kernel still has.
            handle.on_delivery(Box::new(drop));
        }
        let mut closing = Closing::new(socket);
        let outcome = match closing.acknowledged(lifetime.acknowledged_until(Instant::now())).await {
            Ok(()) => {
                self.settle(complete);
                closing.closed().await
            }
            Err(outcome) => {
                self.cut |= outcome == Outcome::Unacknowledged;
                self.settle(complete && outcome != Outcome::Unacknowledged);
                outcome
            }
        };
        self.metrics.closes.count(outcome);
    }

    /// Whether the answers were delivered that were complete when the connection went.
    fn settle(&self, delivered: bool) {
        let answers = self.shared.handle.settle(delivered);
        if self.cut && !delivered {
            self.count_cut(answers);
        }
    }
}

impl Drop for MetricsGuard {
    fn drop(&mut self) {
        // Here only when the thread ends under the connection, or there was no handshake.
        self.shared.handle.settle(false);
        self.registry.leave(&self.key);
        self.metrics.left(self.state);
        self.metrics.closed(self.reason);
    }
}
