//! One connection, from its first byte to its last.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
};

use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    select,
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    CallService, ListenerPhase,
    http_connection::HttpConnection,
    http1::SayClose,
    in_flight::{ConnectionState, CountCalls, ThreadLoad},
    lifetime::{Action, Lifetime, Stall, Timeouts},
    lingering_close::{Closing, Fin, Lent, Outcome, Owner, Socket, finish, lend, write_now},
    metrics::{CloseReason, ConnectionPhase, ListenerMetrics, Protocol},
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
    pub http1: http1::Builder,
    pub http2: http2::Builder<TokioExecutor>,
    pub max_head_bytes: usize,
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
        let lifetime = Lifetime::new(&self.timeouts, opened_at);
        let mut guard = MetricsGuard::new(&self, Arc::clone(&shared));
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
                    Err(Refused { told }) => return guard.refuse(told, &lifetime).await,
                }
            }
        };
        let asked_for = io.protocol();
        let (io, owner) = lend(io, Fin::WhenSilent);
        let (mut io, observed) = PolicedIo::new(io, self.timeouts.unresponsive());
        let protocol = match asked_for {
            Some(Protocol::Http1) => {
                io.begin_http1(self.max_head_bytes, &[]);
                Protocol::Http1
            }
            Some(Protocol::Http2) => Protocol::Http2,
            None => match Box::pin(self.find_protocol(&mut io, lifetime.clone())).await {
                Ok(protocol) => protocol,
                Err(reason) => {
                    guard.reason = reason;
                    return;
                }
            },
        };
        guard.speak(protocol);
        let mut conversation = Conversation { shared, owner, observed, lifetime, guard };
        let service = CountCalls::new(self.service.clone(), Arc::clone(&conversation.shared));
        match protocol {
            Protocol::Http2 => {
                let connection = pin!(self.http2.serve_connection(TokioIo::new(io), service));
                self.drive(connection, &mut conversation).await;
            }
            Protocol::Http1 => {
                io.get_ref().get_ref().probe_when_silent(self.timeouts.probes());
                let service = SayClose::new(service, conversation.shared.handle.clone());
                // Boxed, so that it adds nothing to a connection of HTTP/2.
                let mut connection = Box::pin(self.http1.serve_connection(TokioIo::new(io), service));
                self.drive(connection.as_mut(), &mut conversation).await;
            }
        }
        let Conversation { shared, owner, observed, lifetime, mut guard } = conversation;
        if let Some(mut socket) = owner.returned() {
            // h2 writes whole frames, so where the kernel has taken all there is no part of one.
            if let Some(told) = observed.told().filter(|_| !owner.blocked()) {
                write_now(&mut socket, &told).await;
            }
            if protocol == Protocol::Http1 {
                // A client of HTTP/1 may wait for the end.
                finish(&mut socket).await;
            }
            let complete = shared.unsent() == 0 && !owner.blocked();
            guard.close(socket, complete, &lifetime).await;
        }
    }

    /// Waits for the bytes that tell what the peer speaks.
    async fn find_protocol(
        &self,
        io: &mut PolicedIo<Lent<Transport>>,
        mut lifetime: Lifetime,
    ) -> Result<Protocol, CloseReason> {
        let mut phase = self.phase.clone();
        loop {
            let Action::Wait(until) = lifetime.next_action(Instant::now(), false, None) else {
                return Err(CloseReason::Handshake);
            };
            select! {
                biased;
                found = poll_fn(|cx| io.poll_protocol(cx, self.max_head_bytes)) => {
                    return found.ok().flatten().ok_or(CloseReason::Client);
                }
                _ = phase.changed(), if lifetime.ending().is_none() => lifetime.drain(Instant::now()),
                () = sleep_until(until) => {}
            }
        }
    }

    /// Serves calls until the connection ends, or has to.
    async fn drive<C: HttpConnection>(&self, mut connection: Pin<&mut C>, conversation: &mut Conversation) {
        let Conversation { shared, owner, observed, lifetime, guard } = conversation;
        let mut phase = self.phase.clone();
        let mut timer = pin!(sleep_until(shared.opened_at));
        let mut stall = Stall::default();
        loop {
            let progress = poll_fn(|cx| {
                observed.begin_turn();
                let progress =
                    connection.as_mut().poll_turn(cx, observed, || shared.calls() == 0 && !owner.blocked());
                guard.enter(ConnectionPhase::of(observed.is_handshake_done(), lifetime.ending()));
                progress
            });
            select! {
                biased;
                end = progress => {
                    guard.reason = reason(&end, observed, lifetime);
                    if let Some(violation) = observed.violation() {
                        self.metrics.policed.count(violation);
                    }
                    break;
                }
                _ = phase.changed(), if lifetime.ending() != Some(CloseReason::Drain) => {
                    lifetime.drain(Instant::now());
                    shared.handle.notify(GoAwayReason::Drain);
                    connection.as_mut().go_away(shared.calls() == 0);
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
                Action::GoAway(CloseReason::Idle) if C::IS_CLOSED_WHEN_IDLE => {
                    guard.reason = CloseReason::Idle;
                    break;
                }
                Action::GoAway(reason) => {
                    timer.as_mut().reset(lifetime.end(reason, now));
                    shared.handle.notify(GoAwayReason::Age);
                    connection.as_mut().go_away(shared.calls() == 0);
                }
                Action::Cut(reason) => {
                    guard.reason = reason;
                    guard.cut = true;
                    guard.count_cut(shared.calls() - shared.unsent());
                    break;
                }
            }
        }
    }
}

/// A connection that is being served, for its loop and its end.
struct Conversation {
    shared: Arc<ConnectionState>,
    owner: Owner<Transport>,
    observed: Arc<Observed>,
    lifetime: Lifetime,
    guard: MetricsGuard,
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
    if observed.is_refused() {
        return CloseReason::Error;
    }
    let Err(error) = end else { return CloseReason::Client };
    if error.is_timeout() {
        return CloseReason::Keepalive;
    }
    let source = std::error::Error::source(error);
    let of_http2 = source.and_then(|source| source.downcast_ref::<h2::Error>());
    match of_http2 {
        Some(error) if error.is_io() || error.is_remote() => CloseReason::Client,
        None if source.is_some_and(<dyn std::error::Error>::is::<io::Error>) => CloseReason::Client,
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

    /// Its first bytes, or its TLS handshake, have told the protocol.
    fn speak(&self, protocol: Protocol) {
        self.shared.set_protocol(protocol);
        self.metrics.speaks(protocol);
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
        if let Some(protocol) = self.shared.protocol() {
            self.metrics.spoke(protocol);
        }
        self.metrics.left(self.state);
        self.metrics.closed(self.reason);
    }
}
