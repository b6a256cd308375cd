//! One connection to the admin port.

use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep_until},
};

use super::routes::Routes;

/// How long a client may take to send the head of its first request.
const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// How long a connection may be without a request. Longer than the pause between
/// two scrapes, as a rule.
const IDLE: Duration = Duration::from_mins(2);
const MAX_STREAMS: u32 = 16;
const MAX_HEAD_BYTES: u32 = 16 * 1_024;
const MAX_RESETS: usize = 1_024;
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Serves a connection until it ends, is idle for too long, or `stopped` closes.
pub async fn serve(stream: TcpStream, routes: Routes, mut stopped: watch::Receiver<()>) {
    let usage = Usage::new();
    let builder = builder();
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let guard = usage.begin();
        routes.answer(request, guard)
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut stopping = false;
    loop {
        tokio::select! {
            // A client that breaks the protocol or goes away is its own affair.
            _ = connection.as_mut() => return,
            _ = stopped.changed(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = sleep_until(usage.expires()) => {
                if usage.expires() <= Instant::now() {
                    return;
                }
            }
        }
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(MAX_HEAD_BYTES as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_STREAMS as usize)
        .max_local_error_reset_streams(MAX_RESETS)
        .max_header_list_size(MAX_HEAD_BYTES)
        // A watching client that is gone without a word must not keep its place.
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE);
    builder
}

/// Whether a connection is in use, and until when it may be without use.
#[derive(Clone, Debug)]
struct Usage(Arc<Mutex<Use>>);

#[derive(Debug)]
struct Use {
    open: usize,
    expires: Instant,
}

impl Usage {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Use { open: 0, expires: Instant::now() + FIRST_REQUEST })))
    }

    fn begin(&self) -> InUse {
        self.update(|usage| usage.open += 1);
        InUse(self.clone())
    }

    /// When it is to be closed, as far as is known now.
    fn expires(&self) -> Instant {
        let usage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if usage.open > 0 { Instant::now() + IDLE } else { usage.expires }
    }

    fn update(&self, change: impl FnOnce(&mut Use)) {
        let mut usage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut usage);
        usage.expires = Instant::now() + IDLE;
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub struct InUse(Usage);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.update(|usage| usage.open -= 1);
    }
}
