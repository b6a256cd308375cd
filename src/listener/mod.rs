//! The way in: the port, the serving threads, and the connections on them.
//!
//! One acceptor on the control runtime takes connections and hands each to the
//! serving thread with the fewest. tonic's own server is not used: it leaves the
//! handshake, the drain and failing accepts without a limit.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread::available_parallelism,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};
use tower::Service;

use self::{
    acceptor::{Acceptor, Seating},
    calls::Load,
    connection::Host,
    life::Spans,
    meter::Meter,
};
use crate::{config::Config, service::call::Inbound};

mod acceptor;
mod bind;
mod calls;
mod census;
mod connection;
mod handshake;
mod life;
mod limits;
pub mod lingering_close;
mod meter;
mod request_rest;
mod worker;

pub use self::{
    bind::{BindError, bind},
    census::Census,
    request_rest::RequestBody,
};

/// Called several times a second on each serving thread, with the thread's number.
pub type Ticks = Arc<dyn Fn(usize) + Send + Sync>;

/// How long the acceptor and the threads may take to end when told to.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// Where all connections are at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    Draining,
    Over,
}

/// An open port that nobody accepts from yet.
#[derive(Debug)]
pub struct Listener {
    socket: std::net::TcpListener,
    addr: SocketAddr,
    config: Config,
    max_connections: usize,
    census: Census,
}

impl Listener {
    /// Opens the port of the gRPC API.
    pub fn bind(config: &Config) -> Result<Self, BindError> {
        let socket = bind("grpc_addr", config.grpc_addr)?;
        // A port of 0 becomes the one that the system chose.
        let addr = socket.local_addr().unwrap_or(config.grpc_addr);
        let max_connections = limits::max_connections(config.max_connections).min(SEATS);
        let census = Census::default();
        Ok(Self { socket, addr, config: config.clone(), max_connections, census })
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// The connections that are open.
    pub fn census(&self) -> Census {
        self.census.clone()
    }

    /// How many serving threads there will be.
    pub fn threads(&self) -> usize {
        match self.config.serving_threads {
            0 => available_parallelism().map_or(1, Into::into),
            threads => threads,
        }
    }

    /// Serves every connection with `service` on threads of its own. Belongs on the
    /// control runtime, where the acceptor stays.
    pub fn serve<S, B>(self, service: &S, ticks: &Ticks) -> io::Result<Running>
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
        let meter = Arc::new(Meter::new(self.max_connections));
        let (alive, ended) = mpsc::channel(1);
        let (mut inboxes, mut threads) = (Vec::new(), Vec::new());
        for number in 0..self.threads() {
            let (phase, watch) = watch::channel(Phase::Serving);
            let host = Arc::new(Host {
                service: service.clone(),
                http2: connection::http2(&self.config),
                spans: Spans::new(&self.config),
                meter: Arc::clone(&meter),
                load: Arc::new(Load::of(number)),
                phase: watch,
                census: self.census.clone(),
            });
            threads.push(Thread { phase, load: Arc::clone(&host.load) });
            inboxes.push(worker::start(number, host, Arc::clone(ticks), alive.clone())?);
        }
        let seats = Arc::new(Semaphore::new(self.max_connections));
        let listener = tokio::net::TcpListener::from_std(self.socket)?;
        let seating = Seating { threads: inboxes, seats: Arc::clone(&seats), meter: Arc::clone(&meter) };
        let (stop, stopped) = oneshot::channel();
        let acceptor = tokio::spawn(Acceptor { listener, seating }.run(stopped));
        Ok(Running { threads, seats, max_connections: self.max_connections, meter, stop, acceptor, ended })
    }
}

/// As many seats as a drain can wait for.
const SEATS: usize = u32::MAX as usize;

/// The drain's end of a serving thread.
struct Thread {
    phase: watch::Sender<Phase>,
    load: Arc<Load>,
}

/// A listener that serves.
pub struct Running {
    threads: Vec<Thread>,
    seats: Arc<Semaphore>,
    max_connections: usize,
    meter: Arc<Meter>,
    stop: oneshot::Sender<()>,
    acceptor: JoinHandle<()>,
    ended: mpsc::Receiver<Infallible>,
}

/// What was left when a drain's time was up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    pub connections_cut: usize,
    pub calls_cut: usize,
}

impl Running {
    /// Closes the port, tells every peer to go, serves what they have begun for as
    /// long as `patience`, and cuts what is left.
    pub async fn drain(self, patience: Duration) -> Drained {
        let Self { threads, seats, max_connections, meter, stop, acceptor, mut ended } = self;
        let _ = stop.send(());
        let _ = timeout(STOP_PATIENCE, acceptor).await;
        tell(&threads, Phase::Draining);
        let everyone = u32::try_from(max_connections).unwrap_or(u32::MAX);
        let drained = match timeout(patience, seats.acquire_many(everyone)).await {
            Ok(_) => Drained::default(),
            Err(_) => remains(&threads),
        };
        meter.calls_cut.increment(drained.calls_cut as u64);
        tell(&threads, Phase::Over);
        // A thread that hangs is left to the end of the process.
        let _ = timeout(STOP_PATIENCE, ended.recv()).await;
        drained
    }
}

fn tell(threads: &[Thread], phase: Phase) {
    for thread in threads {
        thread.phase.send_replace(phase);
    }
}

fn remains(threads: &[Thread]) -> Drained {
    let sum = |part: fn(&Load) -> usize| threads.iter().map(|thread| part(&thread.load)).sum();
    Drained {
        connections_cut: sum(|load| load.connections.load(Relaxed)),
        calls_cut: sum(|load| load.calls.load(Relaxed) + load.undelivered.load(Relaxed)),
    }
}
