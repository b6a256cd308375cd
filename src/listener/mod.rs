//! The port of the API, the serving threads, and the connections on them.
//!
//! One acceptor on the control runtime accepts connections and gives each to the serving
//! thread with the fewest. tonic's own server is not used, because it has no deadline for
//! the handshake and the drain, and no pause after a failed accept.
//!
//! **Invariant:** a connection stays on its serving thread until it ends.
//! It deliberately knows no method and no store: it calls a tower service.

use std::{
    convert::Infallible,
    error::Error,
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
    acceptor::{Acceptor, Dispatcher},
    connection::ServeContext,
    connection_state::ThreadLoad,
    lifetime::Timeouts,
    metrics::ListenerMetrics,
    stream_limit::StreamLimit,
    tls::{Handshakes, Tls},
};
use crate::{
    config::Config,
    rpc::{call::Inbound, early_refusal::EarlyRefusal},
};

mod acceptor;
mod addresses;
mod bind;
mod connection;
mod connection_state;
mod early_answers;
mod fd_limit;
mod http1;
mod http2;
mod http_connection;
mod in_flight;
mod incoming;
mod incoming_body;
mod lifetime;
pub mod lingering_close;
mod metrics;
mod metrics_guard;
pub mod policing;
mod registry;
mod request_rest;
mod sending;
mod serving_thread;
mod stream_limit;
mod tls;

pub use self::{
    addresses::Addresses,
    bind::{BindError, bind},
    http_connection::{HttpConnection, Turn},
    http1::http1,
    http2::Http2,
    incoming::Incoming,
    incoming_body::IncomingBody,
    metrics::Protocol,
    registry::{ConnectionInfo, ConnectionRegistry},
    request_rest::RequestBody,
    tls::TlsError,
};

/// A service that answers calls on the serving threads.
pub trait CallService:
    Service<
        Request<Inbound<RequestBody>>,
        Response = Response<<Self as CallService>::Body>,
        Error = Infallible,
        Future: Send,
    > + Clone
    + Send
    + Sync
    + 'static
{
    type Body: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static;
}

impl<S, B> CallService for S
where
    S: Service<Request<Inbound<RequestBody>>, Response = Response<B>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    type Body = B;
}

/// Called several times a second on each serving thread, with the thread's number.
pub type Ticks = Arc<dyn Fn(usize) + Send + Sync>;

/// How long the acceptor and the threads may take to end when told to.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Where all connections are at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ListenerPhase {
    Serving,
    Draining,
    Over,
}

/// A bound port before its accept loop runs.
#[derive(Debug)]
pub struct Listener {
    socket: std::net::TcpListener,
    addr: SocketAddr,
    config: Config,
    max_connections: usize,
    registry: ConnectionRegistry,
    tls: Option<Tls>,
}

/// Why there is no port of the API.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Listener {
    /// Reads the files of TLS and opens the port of the gRPC API.
    ///
    /// # Errors
    /// A file of TLS will not do, or the port cannot be opened.
    pub fn bind(config: &Config) -> Result<Self, ListenError> {
        let tls = Tls::load(config)?;
        let socket = bind("grpc_addr", config.grpc_addr)?;
        // A port of 0 becomes the one that the system chose.
        let addr = socket.local_addr().unwrap_or(config.grpc_addr);
        let max_connections = fd_limit::max_connections(config.max_connections).min(MAX_PERMITS);
        let registry = ConnectionRegistry::default();
        Ok(Self { socket, addr, config: config.clone(), max_connections, registry, tls })
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// The connections that are open.
    pub fn registry(&self) -> ConnectionRegistry {
        self.registry.clone()
    }

    /// How many serving threads there will be.
    pub fn threads(&self) -> usize {
        match self.config.serving_threads {
            0 => available_parallelism().map_or(1, Into::into),
            threads => threads,
        }
    }

    /// Serves every connection with `service` on the serving threads. `early` refuses calls
    /// before. Belongs on the control runtime, where the acceptor stays.
    pub fn serve<S: CallService>(
        self,
        service: &S,
        early: Option<&Arc<dyn EarlyRefusal>>,
        ticks: &Ticks,
    ) -> io::Result<RunningListener> {
        let metrics = Arc::new(ListenerMetrics::new(self.max_connections));
        let (alive, ended) = mpsc::channel(1);
        let (mut senders, mut threads) = (Vec::new(), Vec::new());
        let permits = Arc::new(Semaphore::new(self.max_connections));
        let streams = Arc::new(StreamLimit::new(&self.config, Arc::clone(&permits)));
        for number in 0..self.threads() {
            let (phase, watch) = watch::channel(ListenerPhase::Serving);
            let context = Arc::new(ServeContext {
                service: service.clone(),
                early: early.cloned(),
                http1: http1(http1::max_head_bytes(&self.config)),
                http2: connection::http2(&self.config),
                streams: Arc::clone(&streams),
                max_head_bytes: http1::max_head_bytes(&self.config),
                timeouts: Timeouts::new(&self.config),
                metrics: Arc::clone(&metrics),
                load: Arc::new(ThreadLoad::of(number)),
                phase: watch,
                registry: self.registry.clone(),
                handshakes: self.tls.clone().map(Handshakes::new),
            });
            threads.push(ServingThread { phase, load: Arc::clone(&context.load) });
            senders.push(serving_thread::start(number, context, Arc::clone(ticks), alive.clone())?);
        }
        let listener = tokio::net::TcpListener::from_std(self.socket)?;
        let incoming = Incoming::new(listener, "grpc");
        let max_per_address = self.config.max_connections_per_address;
        let dispatcher =
            Dispatcher::new(senders, Arc::clone(&permits), max_per_address, Arc::clone(&metrics));
        let (stop, stopped) = oneshot::channel();
        let acceptor = tokio::spawn(Acceptor { incoming, dispatcher }.run(stopped));
        let reloading = self.tls.map(|tls| tokio::spawn(tls.keep_reloading()));
        Ok(RunningListener {
            threads,
            permits,
            max_connections: self.max_connections,
            metrics,
            stop,
            acceptor,
            reloading,
            ended,
        })
    }
}

/// As many seats as a drain can wait for.
const MAX_PERMITS: usize = u32::MAX as usize;

/// The drain's end of a serving thread.
struct ServingThread {
    phase: watch::Sender<ListenerPhase>,
    load: Arc<ThreadLoad>,
}

/// A listener that serves.
pub struct RunningListener {
    threads: Vec<ServingThread>,
    permits: Arc<Semaphore>,
    max_connections: usize,
    metrics: Arc<ListenerMetrics>,
    stop: oneshot::Sender<()>,
    acceptor: JoinHandle<()>,
    reloading: Option<JoinHandle<()>>,
    ended: mpsc::Receiver<Infallible>,
}

/// What was left when a drain's time was up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    pub connections_cut: usize,
    pub calls_cut: usize,
}

impl RunningListener {
    /// Closes the port, tells every peer to go, serves what they have begun for as
    /// long as `drain_timeout`, and cuts the rest.
    pub async fn drain(self, drain_timeout: Duration) -> Drained {
        let Self { threads, permits, max_connections, metrics, stop, acceptor, reloading, mut ended } = self;
        if let Some(reloading) = reloading {
            reloading.abort();
        }
        let _ = stop.send(());
        let _ = timeout(STOP_TIMEOUT, acceptor).await;
        tell(&threads, ListenerPhase::Draining);
        let everyone = u32::try_from(max_connections).unwrap_or(u32::MAX);
        let drained = match timeout(drain_timeout, permits.acquire_many(everyone)).await {
            Ok(_) => Drained::default(),
            Err(_) => remains(&threads),
        };
        metrics.calls_cut.increment(drained.calls_cut as u64);
        tell(&threads, ListenerPhase::Over);
        // A thread that hangs is left to the end of the process.
        let _ = timeout(STOP_TIMEOUT, ended.recv()).await;
        drained
    }
}

fn tell(threads: &[ServingThread], phase: ListenerPhase) {
    for thread in threads {
        thread.phase.send_replace(phase);
    }
}

fn remains(threads: &[ServingThread]) -> Drained {
    let sum = |part: fn(&ThreadLoad) -> usize| threads.iter().map(|thread| part(&thread.load)).sum();
    Drained {
        connections_cut: sum(|load| load.connections.load(Relaxed)),
        calls_cut: sum(|load| load.calls.load(Relaxed) + load.undelivered.load(Relaxed)),
    }
}
