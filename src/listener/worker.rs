//! A serving thread: a runtime of its own, and the connections it was given.
//!
//! A connection never changes its thread, so nothing of a call crosses one unless
//! the store makes it.

use std::{
    convert::Infallible,
    io,
    net::TcpStream,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio::{
    runtime, select,
    sync::{OwnedSemaphorePermit, mpsc, watch},
    time::{Instant, MissedTickBehavior, interval},
};
use tower::Service;

use super::{Phase, Ticks, calls::Load, connection::Host, request_rest::RequestBody};
use crate::service::call::Inbound;

/// How often a thread shows that it is alive, and how late it is for that.
const TICK: Duration = Duration::from_millis(200);

/// A connection on its way to a thread, and what it holds while it lives.
pub struct Accepted {
    pub stream: TcpStream,
    pub seat: Seat,
}

/// A connection's share of the cap and of its thread's load.
pub struct Seat {
    load: Arc<Load>,
    _permit: OwnedSemaphorePermit,
}

impl Seat {
    pub fn take(load: &Arc<Load>, permit: OwnedSemaphorePermit) -> Self {
        load.connections.fetch_add(1, Relaxed);
        Self { load: Arc::clone(load), _permit: permit }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.load.connections.fetch_sub(1, Relaxed);
    }
}

/// The acceptor's end of a serving thread.
pub struct Inbox {
    pub load: Arc<Load>,
    pub sockets: mpsc::UnboundedSender<Accepted>,
}

/// Starts the thread of this number. It ends, and all it serves with it, once the
/// phase is [`Phase::Over`]; `alive` is dropped when it has.
pub fn start<S, B>(
    number: usize,
    host: Arc<Host<S>>,
    ticks: Ticks,
    alive: mpsc::Sender<Infallible>,
) -> io::Result<Inbox>
where
    S: Service<Request<Inbound<RequestBody>>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    // Bounded by the cap on connections: whatever is in it holds a seat.
    let (sockets, inbox) = mpsc::unbounded_channel();
    let load = Arc::clone(&host.load);
    thread::Builder::new().name(format!("serve-{number}")).spawn(move || {
        let phase = host.phase.clone();
        let lag = host.meter.loop_lag.clone();
        let tick = |due: Instant| {
            lag.record(due.elapsed());
            ticks(number);
        };
        runtime.block_on(work(inbox, phase, tick, |accepted| spawn(&host, accepted)));
        // Not a plain drop, which would wait for whatever blocks.
        runtime.shutdown_background();
        drop(alive);
    })?;
    Ok(Inbox { load, sockets })
}

async fn work(
    mut inbox: mpsc::UnboundedReceiver<Accepted>,
    mut phase: watch::Receiver<Phase>,
    tick: impl Fn(Instant),
    serve: impl Fn(Accepted),
) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut over = std::pin::pin!(async move { phase.wait_for(|phase| *phase == Phase::Over).await.is_ok() });
    loop {
        select! {
            Some(accepted) = inbox.recv() => serve(accepted),
            due = ticks.tick() => tick(due),
            _ = over.as_mut() => break,
        }
    }
}

fn spawn<S, B>(host: &Arc<Host<S>>, accepted: Accepted)
where
    S: Service<Request<Inbound<RequestBody>>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Accepted { stream, seat } = accepted;
    match tokio::net::TcpStream::from_std(stream) {
        Ok(stream) => drop(tokio::spawn(Arc::clone(host).serve(stream, seat))),
        Err(error) => tracing::warn!(%error, "a connection could not be handed to its thread"),
    }
}
