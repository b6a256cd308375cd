//! The graceful shutdown: what happens in which order, and the deadline of each step.
//!
//! 1. Health names turn to `NOT_SERVING`. Calls are served as before for
//!    `shutdown_delay_ms`, because routes may still lead here.
//! 2. Streams of health and reflection end. The listener closes its port, sends GOAWAY on
//!    every connection, and watches end ([`RunningListener::drain`], `rpc/goaway.rs`).
//! 3. Calls in flight have `drain_timeout_ms`, and are cut after that.
//! 4. The store closes within [`STORE_CLOSE_TIMEOUT`], and then the admin port.
//! 5. `cli` flushes telemetry within `flush_timeout_ms`, after all that is logged here.
//!
//! A second signal ends the process immediately. **Invariant:** every step has a deadline.

use std::{io, sync::Arc, time::Duration};

use tokio::{sync::oneshot, task::JoinHandle, time};

use crate::{config::Config, domain::Store, listener::RunningListener, service::Health};

/// How long the store may take to close.
const STORE_CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every call was answered.
    Clean,
    /// The drain's time was up, and calls were cut.
    CallsCut,
}

/// The running parts of the process.
pub struct Shutdown {
    pub health: Health,
    pub listener: RunningListener,
    /// `None` where it was not open yet.
    pub store: Option<OpenStore>,
    pub admin: RunningAdmin,
}

/// An open store, and the tasks that use it until it is closed.
pub struct OpenStore {
    pub store: Arc<dyn Store>,
    pub tasks: [JoinHandle<()>; 2],
}

/// The admin port while it serves.
pub struct RunningAdmin {
    pub stop: oneshot::Sender<()>,
    pub served: JoinHandle<io::Result<()>>,
}

impl Shutdown {
    /// Does all steps but the last.
    pub async fn run(self, config: &Config) -> Ended {
        let Self { health, listener, store, admin } = self;
        tracing::info!(delay = ?config.shutdown_delay, timeout = ?config.drain_timeout, "draining");
        health.set_draining();
        time::sleep(config.shutdown_delay).await;
        health.end_streams();
        let drained = listener.drain(config.drain_timeout).await;
        let ended = if drained.calls_cut > 0 { Ended::CallsCut } else { Ended::Clean };
        if ended == Ended::CallsCut {
            tracing::warn!(
                calls = drained.calls_cut,
                connections = drained.connections_cut,
                "the drain's time was up: calls were cut"
            );
        }
        if let Some(OpenStore { store, tasks }) = store {
            tasks.iter().for_each(JoinHandle::abort);
            if time::timeout(STORE_CLOSE_TIMEOUT, store.close()).await.is_err() {
                tracing::warn!("the store did not close in time; what it acknowledged is safe");
            }
        }
        drop(admin.stop);
        let _ = admin.served.await;
        tracing::info!("ended");
        ended
    }
}
