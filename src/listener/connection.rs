//! One connection, from its first byte to its last.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
};

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    select,
    sync::watch,
    time::{Instant, Sleep, sleep_until},
};

use super::{
    CallService, ListenerPhase,
    connection_state::{ConnectionState, ThreadLoad},
    early_answers::EarlyAnswers,
    http_connection::{ConnectionError, HttpConnection, ParkedConnection, Turn},
    http1::SayClose,
    http2::{Http2, Http2Connection},
    in_flight::CountCalls,
    lifetime::{Action, Lifetime, Stall, Timeouts},
    lingering_close::{Lent, Owner, finish, lend, write_now},
    metrics::{CloseReason, ConnectionPhase, ListenerMetrics, Protocol},
    metrics_guard::MetricsGuard,
    policing::{Observed, PolicedIo},
    registry::ConnectionRegistry,
    sending::Sending,
    stream_limit::StreamLimit,
    tls::{Handshakes, Refused, Transport},
};
use crate::{
    config::Config,
    rpc::{early_refusal::EarlyRefusal, goaway::GoAwayReason, holdings::Holdings, source::Source},
};

/// Unread bytes a client may send on one stream. It fits a message at its cap and
/// a part of the next, so that no honest client waits for room.
const STREAM_WINDOW_BYTES: u32 = 128 * 1_024;
/// The same over all streams of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 1_024 * 1_024;
/// Calls that were reset before they were taken from h2. A burst of an honest client
/// is read in turns of a hundred or so, and a turn ends with a whole read.
const MAX_PENDING_RESETS: usize = 1_024;
/// Bytes of a response that wait in h2 for a client that does not read.
const SEND_BUFFER_BYTES: usize = 64 * 1_024;

/// How to speak HTTP/2.
pub fn http2(config: &Config) -> Http2 {
    let mut h2 = h2::server::Builder::new();
    h2
        // Calls are policed that are reset. This bounds those of one turn of reading.
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(Some(config.max_stream_resets))
        .max_header_list_size(config.max_header_list_bytes)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES);
    Http2 { h2, keepalive_interval: config.keepalive_interval, keepalive_timeout: config.keepalive_timeout }
}

/// What every connection of one thread is served with.
pub struct ServeContext<S> {
    pub service: S,
    /// What refuses calls before `service` sees them, if anything does.
    pub early: Option<Arc<dyn EarlyRefusal>>,
    pub http1: http1::Builder,
    pub http2: Http2,
    pub streams: Arc<StreamLimit>,
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
        let shared = ConnectionState::new(Arc::clone(&self.load), source, opened_at, held);
        let mut conversation = Conversation::new(&self, Arc::new(shared));
        let io = match &self.handshakes {
            None => Transport::Plain(socket),
            Some(handshakes) => {
                let lifetime = conversation.lifetime.clone();
                // Boxed, because most of a connection's life is spent behind it.
                match Box::pin(handshakes.accept(socket, lifetime, self.phase.clone())).await {
                    Ok((io, peer)) => {
                        if let Some(peer) = peer {
                            conversation.shared.handle.set_peer(peer);
                        }
                        io
                    }
                    Err(Refused { told }) => {
                        return conversation.guard.refuse(told, &conversation.lifetime).await;
                    }
                }
            }
        };
        let asked_for = io.protocol();
        let (io, owner) = lend(io);
        let (io, observed) = PolicedIo::new(io, self.timeouts.unresponsive());
        let (io, protocol) = match asked_for {
            Some(protocol) => (io, protocol),
            None => match Box::pin(self.find_protocol(io, conversation.lifetime.clone())).await {
                Ok(found) => found,
                Err(reason) => {
                    conversation.guard.reason = reason;
                    return;
                }
            },
        };
        conversation.guard.speak(protocol);
        let service = CountCalls::new(self.service.clone(), Arc::clone(&conversation.shared));
        let timer = pin!(sleep_until(opened_at));
        match protocol {
            Protocol::Http2 => {
                let early = self
                    .early
                    .as_ref()
                    .map(|early| EarlyAnswers::new(Arc::clone(early), Arc::clone(&conversation.shared)));
                let connection = pin!(self.serve_http2(io, service, early));
                self.drive(connection, &owner, &observed, &mut conversation, timer).await;
            }
            // Boxed, so that it adds nothing to a connection of HTTP/2.
            Protocol::Http1 => {
                Box::pin(self.serve_http1(io, service, &owner, &observed, &mut conversation, timer)).await;
            }
        }
        if let Some(mut socket) = owner.returned() {
            // h2 writes whole frames, so where the kernel has taken all there is no part of one.
            if let Some(told) = observed.told().filter(|_| !owner.blocked()) {
                write_now(&mut socket, &told).await;
            }
            if protocol == Protocol::Http1 {
                // A client of HTTP/1 may wait for the end.
                finish(&mut socket).await;
            }
            let complete = conversation.shared.unsent() == 0 && !owner.blocked();
            conversation.guard.close(socket, complete, &conversation.lifetime).await;
        }
    }

    /// Waits for the bytes that tell what the peer speaks.
    async fn find_protocol(&self, mut io: Io, mut lifetime: Lifetime) -> Result<(Io, Protocol), CloseReason> {
        let mut phase = self.phase.clone();
        loop {
            let Action::Wait(until) = lifetime.next_action(Instant::now(), false, None) else {
                return Err(CloseReason::Handshake);
            };
            select! {
                biased;
                found = poll_fn(|cx| io.poll_protocol(cx, self.max_head_bytes)) => {
                    let protocol = found.ok().flatten().ok_or(CloseReason::Client)?;
                    return Ok((io, protocol));
                }
                _ = phase.changed(), if lifetime.ending().is_none() => lifetime.drain(Instant::now()),
                () = sleep_until(until) => {}
            }
        }
    }

    fn serve_http2(
        &self,
        io: Io,
        service: CountCalls<S>,
        early: Option<EarlyAnswers>,
    ) -> Http2Connection<Io, CountCalls<S>, Sending> {
        let mut http2 = self.http2.clone();
        http2.h2.max_concurrent_streams(self.streams.current());
        http2.serve(io, service, early)
    }

    async fn serve_http1(
        &self,
        mut io: Io,
        service: CountCalls<S>,
        owner: &Owner<Transport>,
        observed: &Observed,
        conversation: &mut Conversation,
        mut timer: Pin<&mut Sleep>,
    ) {
        // What ALPN has told, no byte has.
        io.expect_http1(self.max_head_bytes);
        io.get_ref().get_ref().probe_when_silent(self.timeouts.probes());
        let mut service = SayClose::new(service, conversation.shared.handle.clone());
        loop {
            let mut connection = Box::new(self.http1.serve_connection(TokioIo::new(io), service));
            let hyper = Pin::new(&mut *connection);
            if self.drive(hyper, owner, observed, conversation, timer.as_mut()).await == Driven::Over {
                return;
            }
            // Between two requests hyper has read nothing that it has not passed on.
            let parts = connection.into_parts();
            (io, service) = (parts.io.into_inner(), parts.service);
            // Empty, and it keeps what hyper has allocated to read into.
            drop(parts.read_buf);
            let parked = pin!(ParkedConnection(&mut io));
            if self.drive(parked, owner, observed, conversation, timer.as_mut()).await == Driven::Over {
                return;
            }
        }
    }

    /// Serves calls until the connection ends, or has to, or is to be parked or resumed.
    async fn drive<C: HttpConnection>(
        &self,
        mut connection: Pin<&mut C>,
        owner: &Owner<Transport>,
        observed: &Observed,
        conversation: &mut Conversation,
        mut timer: Pin<&mut Sleep>,
    ) -> Driven {
        let Conversation { shared, lifetime, guard, phase, stall } = conversation;
        loop {
            let turn = poll_fn(|cx| {
                observed.begin_turn();
                let turn =
                    connection.as_mut().poll_turn(cx, observed, || shared.calls() == 0 && !owner.blocked());
                guard.enter(ConnectionPhase::of(observed.is_handshake_done(), lifetime.ending()));
                // One on which much waits to be read is looked at from now on.
                if turn.is_pending() && shared.handle.unread().taken().is_some() && !stall.is_looked_for() {
                    return Poll::Ready(None);
                }
                turn.map(Some)
            });
            select! {
                biased;
                turn = turn => match turn {
                    None => {}
                    Some(Turn::Paused) => return Driven::Paused,
                    Some(Turn::Over(end)) => {
                        guard.reason = reason(&end, observed, lifetime);
                        if let Some(violation) = observed.violation() {
                            self.metrics.policed.count(violation);
                        }
                        break;
                    }
                },
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
        Driven::Over
    }
}

/// What became of a connection that was driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Driven {
    Over,
    /// It goes on: with hyper if it was parked, and parked otherwise.
    Paused,
}

type Io = PolicedIo<Lent<Transport>>;

/// What is known of a connection while it is served.
struct Conversation {
    shared: Arc<ConnectionState>,
    lifetime: Lifetime,
    guard: MetricsGuard,
    phase: watch::Receiver<ListenerPhase>,
    stall: Stall,
}

impl Conversation {
    fn new<S>(context: &ServeContext<S>, shared: Arc<ConnectionState>) -> Self {
        let lifetime = Lifetime::new(&context.timeouts, shared.opened_at);
        let guard = MetricsGuard::new(context, Arc::clone(&shared));
        Self { shared, lifetime, guard, phase: context.phase.clone(), stall: Stall::default() }
    }
}

/// Why a connection ended that was not cut.
fn reason(end: &Result<(), ConnectionError>, observed: &Observed, lifetime: &Lifetime) -> CloseReason {
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
    let source = std::error::Error::source(error);
    match error {
        ConnectionError::Unresponsive => CloseReason::Keepalive,
        ConnectionError::Http2(error) if error.is_io() || error.is_remote() => CloseReason::Client,
        ConnectionError::Http1(_) if source.is_some_and(<dyn std::error::Error>::is::<io::Error>) => {
            CloseReason::Client
        }
        _ => {
            tracing::debug!(%error, ?source, "a connection failed");
            CloseReason::Error
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, net::Ipv4Addr};

    use http::Response;
    use http_body_util::Full;
    use tokio::{net::TcpListener, sync::Semaphore};

    use super::*;

    /// The size class of jemalloc that a connection's task is in.
    const TASK_BYTES: usize = 3_072;

    /// What tokio puts around the future of a task, at most.
    const AROUND_BYTES: usize = 160;

    #[tokio::test]
    async fn the_future_of_a_connection_stays_within_its_size_class() {
        let config = Config::default();
        let service = tower::service_fn(|_| async {
            Ok::<_, Infallible>(Response::new(Full::new(bytes::Bytes::new())))
        });
        let (_phase, phase) = watch::channel(ListenerPhase::Serving);
        let context = Arc::new(ServeContext {
            service,
            early: None,
            http1: super::super::http1(0),
            http2: http2(&config),
            streams: Arc::new(StreamLimit::new(&config, Arc::new(Semaphore::new(1)))),
            max_head_bytes: 0,
            timeouts: Timeouts::new(&config),
            metrics: Arc::new(ListenerMetrics::new(1)),
            load: Arc::default(),
            phase,
            registry: ConnectionRegistry::default(),
            handshakes: None,
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let served = context.serve(socket, None, Holdings::default(), Box::new(()));
        let bytes = std::mem::size_of_val(&served);
        assert!(bytes + AROUND_BYTES <= TASK_BYTES, "{bytes}");
    }
}
