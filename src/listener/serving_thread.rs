//! A serving thread: its runtime, and the connections that it was given.
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

use tokio::{
    runtime, select,
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    CallService, ListenerPhase, Ticks, addresses::AddressConnection, connection::ServeContext,
    connection_state::ThreadLoad,
};
use crate::rpc::{holdings::Holdings, source::Source};

/// How often a thread shows that it is alive, and how late it is for that.
const TICK_INTERVAL: Duration = Duration::from_millis(200);

/// A connection on its way to a thread, and what it holds while it lives.
pub struct Accepted {
    pub stream: TcpStream,
    pub source: Source,
    pub permit: ConnectionPermit,
}

/// A connection's share of the cap and of its thread's load.
pub struct ConnectionPermit {
    load: Arc<ThreadLoad>,
    address: AddressConnection,
}

impl ConnectionPermit {
    pub fn take(load: &Arc<ThreadLoad>, address: AddressConnection) -> Self {
        load.connections.fetch_add(1, Relaxed);
        Self { load: Arc::clone(load), address }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.load.connections.fetch_sub(1, Relaxed);
    }
}

/// The acceptor's end of a serving thread.
pub struct SocketSender {
    pub load: Arc<ThreadLoad>,
    pub sockets: mpsc::UnboundedSender<Accepted>,
}

/// Starts the thread of this number. It ends, and all it serves with it, once the
/// phase is [`ListenerPhase::Over`]; `alive` is dropped when it has.
pub fn start<S: CallService>(
    number: usize,
    context: Arc<ServeContext<S>>,
    ticks: Ticks,
    alive: mpsc::Sender<Infallible>,
) -> io::Result<SocketSender> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    // Bounded by the limit on connections, because each item holds a permit.
    let (sockets, received) = mpsc::unbounded_channel();
    let load = Arc::clone(&context.load);
    thread::Builder::new().name(format!("serve-{number}")).spawn(move || {
        let phase = context.phase.clone();
        let lag = context.metrics.loop_lag.clone();
        let tick = |due: Instant| {
            lag.record(due.elapsed());
            ticks(number);
        };
        runtime.block_on(run(received, phase, tick, |accepted| spawn(&context, accepted)));
        // Not a plain drop, which would wait for whatever blocks.
        runtime.shutdown_background();
        drop(alive);
    })?;
    Ok(SocketSender { load, sockets })
}

async fn run(
    mut received: mpsc::UnboundedReceiver<Accepted>,
    mut phase: watch::Receiver<ListenerPhase>,
    tick: impl Fn(Instant),
    serve: impl Fn(Accepted),
) {
    let mut ticks = interval(TICK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut over =
        std::pin::pin!(async move { phase.wait_for(|phase| *phase == ListenerPhase::Over).await.is_ok() });
    loop {
        select! {
            Some(accepted) = received.recv() => serve(accepted),
            due = ticks.tick() => tick(due),
            _ = over.as_mut() => break,
        }
    }
}

fn spawn<S: CallService>(context: &Arc<ServeContext<S>>, accepted: Accepted) {
    let Accepted { stream, source, permit } = accepted;
    match tokio::net::TcpStream::from_std(stream) {
        Ok(stream) => {
            let held = Holdings::of(permit.address.holdings());
            drop(tokio::spawn(Arc::clone(context).serve(stream, Some(source), held, permit)));
        }
        Err(error) => tracing::warn!(%error, "a connection could not be handed to its thread"),
    }
}
