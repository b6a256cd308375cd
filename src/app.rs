//! The composition root: builds the modules, connects them, and shuts them down when a
//! signal asks for it (`shutdown.rs`). Tests of the whole boot the very same code.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{runtime, sync::oneshot, task, time};

use crate::{
    admin::{Admin, DebugPages},
    auth::{Auth, AuthError, AuthFiles},
    config::{ClientAuth, Config},
    domain::{Store, StoreHealth},
    edge::{Edge, Schema},
    feed::Feed,
    layers::{self, InFlight},
    listener::{BindError, ListenError, Listener, Ticks},
    rpc::methods,
    service::{Health, Router, StoreSlot, health::Tick, served_files},
    shutdown::{Ended, OpenStore, RunningAdmin, Shutdown},
    signals::Signals,
    store::{self, OpenError},
    telemetry::Telemetry,
};

/// How often the store is asked whether it can be read and written.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// How long the store may take to answer that.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the service could not start. Each text names the thing and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error("cannot start a thread or set up a signal: {0}; is a limit on threads or descriptors too low?")]
    System(#[from] io::Error),
}

/// The runtime of everything but calls: a flood of calls must not keep the
/// process from answering a probe, a scrape or a signal.
pub fn control_runtime() -> io::Result<runtime::Runtime> {
    runtime::Builder::new_multi_thread().worker_threads(2).thread_name("control").enable_all().build()
}

/// Both ports bound, nothing served yet.
pub struct App {
    config: Config,
    listener: Listener,
    admin: Admin,
    /// `None` where every peer may do everything.
    auth: Option<(Arc<Auth>, AuthFiles)>,
}

impl App {
    /// Opens both ports, and reads keys and policy.
    pub fn build(config: Config) -> Result<Self, StartError> {
        let listener = Listener::bind(&config)?;
        let admin = Admin::bind(&config)?;
        let auth = Auth::open(&config)?;
        Ok(Self { config, listener, admin, auth })
    }

    pub fn grpc_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    pub fn admin_addr(&self) -> SocketAddr {
        self.admin.addr()
    }

    /// Serves until a signal asks the process to end, and then takes everything
    /// down, each step with a deadline. Belongs on the control runtime.
    /// The caller flushes telemetry after this.
    pub async fn run(self, telemetry: &Telemetry) -> Result<Ended, StartError> {
        let mut signals = Signals::catch()?;
        let (grpc_addr, admin_addr) = (self.grpc_addr(), self.admin_addr());
        let Self { config, listener, admin, auth } = self;
        let health = Health::new(&config);
        let slot = StoreSlot::default();

        // Health first: a probe gets an answer while the store opens or migrates.
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async { drop(stopped.await) };
        let calls = InFlight::default();
        let log_filter = telemetry.log_filter().clone();
        let debug = DebugPages { calls: calls.clone(), connections: listener.registry(), log_filter };
        let served = tokio::spawn(admin.serve(telemetry.metrics().clone(), health.clone(), debug, stopped));
        let admin = RunningAdmin { stop, served };
        let router = Router::new(&config, &slot, &health);
        let decides = auth.as_ref().map(|(auth, _)| Arc::clone(auth));
        let traces = telemetry.trace_config();
        let (stack, early) = layers::stack(router, methods::find, &config, traces, calls, decides);
        let service = Edge::new(stack, schema(config.article_api), &config);
        let ticks = ticks(&health, listener.threads());
        let listener = listener.serve(&service, early.as_ref(), &ticks)?;
        tracing::info!(%grpc_addr, %admin_addr, version = env!("CARGO_PKG_VERSION"), "listening");
        warn_of_missing_protection(&config);
        if let Some((auth, files)) = auth {
            drop(tokio::spawn(auth.watch(files)));
        }
        let opening = config.clone();
        let opened = tokio::select! {
            opened = task::spawn_blocking(move || store::open(&opening)) => Some(opened.map_err(io::Error::other)??),
            _ = signals.next() => None,
        };
        let mut store = None;
        if let Some(opened) = opened {
            let feed = Feed::new(Arc::clone(&opened), config.watch_buffer_bytes);
            slot.open(Arc::clone(&opened), feed.clone());
            health.set_store(probe(&*opened).await);
            health.set_started(true);
            tracing::info!("serving");
            let probing = tokio::spawn(keep_probing(Arc::clone(&opened), health.clone()));
            let reading = tokio::spawn(feed.read());
            store = Some(OpenStore { store: opened, tasks: [probing, reading] });
            signals.next().await;
        }
        let lines = telemetry.log_writer().clone();
        tokio::spawn(signals.exit_on_next(async move { lines.flush().await }));

        Ok(Shutdown { health, listener, store, admin }.run(&config).await)
    }
}

/// Says once what every peer may do.
fn warn_of_missing_protection(config: &Config) {
    if config.tls_cert_file.path().is_none() {
        tracing::warn!(
            "TLS is off: names, addresses and tokens pass in plain text; set tls_cert_file and tls_key_file"
        );
    }
    if config.auth_policy_file.path().is_some() {
        return;
    }
    let needs_certificate =
        config.tls_client_ca_file.path().is_some() && config.tls_client_auth == ClientAuth::Required;
    if needs_certificate {
        tracing::warn!(
            "there is no policy: every client with a certificate may read and change every user; set \
             auth_policy_file"
        );
    } else {
        tracing::warn!(
            "auth is off: every peer that reaches the port may read and change every user; set \
             auth_policy_file"
        );
    }
}

/// What the protocols next to gRPC are translated by.
fn schema(article_api: bool) -> Schema {
    let files = served_files(article_api).expect("descriptors are compiled in and tested");
    Schema::new(files).expect("descriptors are compiled in and tested")
}

fn ticks(health: &Health, threads: usize) -> Ticks {
    let tickers: Vec<Tick> = (0..threads).map(|thread| health.ticker(thread)).collect();
    Arc::new(move |thread| tickers[thread].tick())
}

async fn keep_probing(store: Arc<dyn Store>, health: Health) {
    let mut interval = time::interval(PROBE_INTERVAL);
    interval.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        health.set_store(probe(&*store).await);
    }
}

/// What the store can do; nothing, where it does not answer.
async fn probe(store: &dyn Store) -> StoreHealth {
    let silent = StoreHealth { reads: false, writes: false };
    time::timeout(PROBE_TIMEOUT, store.probe()).await.unwrap_or(silent)
}
