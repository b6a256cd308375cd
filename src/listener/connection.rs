//! One connection, from its first byte to its last.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    select,
    sync::watch,
    time::{Instant, sleep_until},
};
use tower::Service;

use super::{
    Phase,
    calls::{Counted, Load, Tally},
    census::Census,
    handshake::Watched,
    life::{Life, Spans, Verdict},
    lingering_close::{Closing, Fin, Outcome, Socket, lend},
    meter::{Meter, Reason, State},
    request_rest::RequestBody,
};
use crate::{
    config::Config,
    service::{call::Inbound, leaving::Farewell},
};

/// Unread bytes a client may send on one stream. It fits a message at its cap and
/// a part of the next, so that no honest client waits for room.
const STREAM_WINDOW: u32 = 128 * 1_024;
/// The same over all streams of a connection.
const CONNECTION_WINDOW: u32 = 1_024 * 1_024;
/// Bytes of a response that wait in h2 for a client that does not read.
const SEND_BUFFER: usize = 64 * 1_024;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How hyper is to speak HTTP/2.
pub fn http2(config: &Config) -> http2::Builder<TokioExecutor> {
    let mut http2 = http2::Builder::new(TokioExecutor::new());
    http2
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.max_concurrent_streams)
        // A client may give up on all it has asked for at once, but not go on and on.
        .max_pending_accept_reset_streams(config.max_concurrent_streams as usize)
        .max_local_error_reset_streams(config.max_stream_resets)
        .max_header_list_size(config.max_header_list_bytes)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval((!config.keepalive_interval.is_zero()).then_some(config.keepalive_interval))
        .keep_alive_timeout(config.keepalive_timeout)
        // No gRPC client reads it.
        .auto_date_header(false);
    http2
}

/// What every connection of one thread is served with.
pub struct Host<S> {
    pub service: S,
    pub http2: http2::Builder<TokioExecutor>,
    pub spans: Spans,
    pub meter: Arc<Meter>,
    pub load: Arc<Load>,
    pub phase: watch::Receiver<Phase>,
    pub census: Census,
}

impl<S, B> Host<S>
where
    S: Service<Request<Inbound<RequestBody>>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    /// Serves a connection to its end, and gives its seat back after that. One future
    /// and no other around it, which would be as large once more.
    pub async fn serve<T: Socket>(self: Arc<Self>, io: T, _seat: impl Sized) {
        let born = Instant::now();
        let tally = Arc::new(Tally::new(Arc::clone(&self.load), born));
        let _listed = self.census.enter(Arc::clone(&tally));
        let (io, owner) = lend(io, Fin::WhenSilent);
        let (io, handshake_done) = Watched::new(io);
        let mut life = Life::new(&self.spans, born);
        let mut record = Record::new(Arc::clone(&self.meter), Arc::clone(&tally));
        {
            let service = Counted::new(self.service.clone(), Arc::clone(&tally));
            let mut connection = pin!(self.http2.serve_connection(TokioIo::new(io), service));
            let mut phase = self.phase.clone();
            let mut timer = pin!(sleep_until(born));
            loop {
                let progress = poll_fn(|cx| {
                    let progress = connection.as_mut().poll(cx);
                    record.enter(State::of(handshake_done.load(Relaxed), life.ending()));
                    progress
                });
                select! {
                    biased;
                    end = progress => {
                        record.reason = life.ending().unwrap_or_else(|| reason(&end));
                        break;
                    }
                    _ = phase.changed(), if life.ending() != Some(Reason::Drain) => {
                        connection.as_mut().graceful_shutdown();
                        life.drain(Instant::now());
                        tally.farewells.say(Farewell::Drain);
                    }
                    () = timer.as_mut() => {}
                }
                let now = Instant::now();
                // What the kernel does not take is an answer, as far as is known.
                let idle_since = tally.idle_since().filter(|_| !owner.blocked());
                match life.judge(now, handshake_done.load(Relaxed), idle_since) {
                    Verdict::Wait(until) => timer.as_mut().reset(until),
                    Verdict::GoAway(reason) => {
                        connection.as_mut().graceful_shutdown();
                        timer.as_mut().reset(life.end(reason, now));
                        tally.farewells.say(Farewell::Age);
                    }
                    Verdict::Cut(reason) => {
                        record.reason = reason;
                        record.cut = true;
                        record.count_cut(tally.calls() - tally.unsent());
                        break;
                    }
                }
            }
        }
        if let Some(socket) = owner.returned() {
            let complete = tally.unsent() == 0 && !owner.blocked();
            record.close(socket, complete, &life).await;
        }
    }
}

/// Why a connection ended that we did not end.
fn reason(end: &hyper::Result<()>) -> Reason {
    let Err(error) = end else { return Reason::Client };
    if error.is_timeout() {
        return Reason::Keepalive;
    }
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    match source {
        Some(error) if error.is_io() || error.is_remote() => Reason::Client,
        _ => {
            tracing::debug!(%error, ?source, "a connection failed");
            Reason::Error
        }
    }
}

/// Keeps the figures right however a connection ends.
struct Record {
    meter: Arc<Meter>,
    tally: Arc<Tally>,
    state: State,
    /// Stays what it is at first only when the thread ends under the connection.
    reason: Reason,
    /// It was ended with what was left to do.
    cut: bool,
}

impl Record {
    fn new(meter: Arc<Meter>, tally: Arc<Tally>) -> Self {
        meter.entered(State::Handshake);
        Self { meter, tally, state: State::Handshake, reason: Reason::DrainCut, cut: false }
    }

    fn enter(&mut self, state: State) {
        if state != self.state {
            self.meter.left(self.state);
            self.meter.entered(state);
            self.tally.enter(state);
            self.state = state;
        }
    }
}

impl Record {
    fn count_cut(&self, calls: usize) {
        self.meter.calls_cut.increment(calls as u64);
    }

    /// Closes the socket. `complete` is whether all that was to be written is written.
    async fn close<T: Socket>(&mut self, socket: T, complete: bool, life: &Life) {
        // Nothing was said to a peer that has not shaken hands.
        if self.reason == Reason::Handshake {
            return;
        }
        self.enter(State::Closing);
        let Tally { farewells, .. } = &*self.tally;
        if farewells.is_leaving() && self.tally.has_served() {
            // An answer that was complete before may be among what the kernel still has.
            farewells.on_delivery(Box::new(drop));
        }
        let mut closing = Closing::new(socket);
        let outcome = match closing.acknowledged(life.acknowledged_until(Instant::now())).await {
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
        self.meter.closes.count(outcome);
    }

    /// Whether the answers were delivered that were complete when the connection went.
    fn settle(&self, delivered: bool) {
        let answers = self.tally.farewells.settle(delivered);
        if self.cut && !delivered {
            self.count_cut(answers);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // Here only when the thread ends under the connection, or there was no handshake.
        self.tally.farewells.settle(false);
        self.meter.left(self.state);
        self.meter.closed(self.reason);
    }
}
