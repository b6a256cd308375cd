//! One connection to the admin port.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::routes::Routes;
use crate::listener::{
    Http2, HttpConnection, Protocol, Turn, http1,
    lingering_close::{Closes, Closing, Lent, Owner, Socket, finish, lend, write_now},
    policing::{Observed, PolicedConnections, PolicedIo},
};

/// How long a client may take to send the head of its first request.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may be without a request. Longer than the pause between
/// two scrapes, as a rule.
const IDLE_TIMEOUT: Duration = Duration::from_mins(2);
const MAX_STREAMS: u32 = 16;
const MAX_HEAD_BYTES: u32 = 16 * 1_024;
const MAX_RESETS: usize = 1_024;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long a client may take to acknowledge an answer when its connection ends.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(10);

/// Serves a connection until it ends, is idle for too long, or `stopped` closes.
pub async fn serve<T>(
    socket: T,
    routes: Routes,
    stopped: watch::Receiver<()>,
    closes: Closes,
    policed: PolicedConnections,
) where
    T: Socket + Send + 'static,
{
    let (stream, owner) = lend(socket);
    let (stream, observed) = PolicedIo::new(stream, KEEPALIVE_INTERVAL);
    converse(stream, &owner, &observed, routes, stopped).await;
    if let Some(violation) = observed.violation() {
        policed.count(violation);
    }
    if let Some(mut socket) = owner.returned() {
        // h2 writes whole frames, so where the kernel has taken all there is no part of one.
        if let Some(goaway) = observed.told().filter(|_| !owner.blocked()) {
            write_now(&mut socket, &goaway).await;
        }
        // A client of HTTP/1 may wait for the end.
        finish(&mut socket).await;
        let mut closing = Closing::new(socket);
        let outcome = match closing.acknowledged(Instant::now() + ACKNOWLEDGED_WITHIN).await {
            Ok(()) => closing.closed().await,
            Err(outcome) => outcome,
        };
        closes.count(outcome);
    }
}

async fn converse<T: Socket + Send + 'static>(
    mut stream: PolicedIo<Lent<T>>,
    owner: &Owner<T>,
    observed: &Observed,
    routes: Routes,
    mut stopped: watch::Receiver<()>,
) {
    let idle = IdleTracker::new();
    let protocol = tokio::select! {
        protocol = poll_fn(|cx| stream.poll_protocol(cx, MAX_HEAD_BYTES as usize)) => protocol,
        _ = stopped.changed() => return,
        () = sleep_until(idle.expires()) => return,
    };
    // A client that goes away before it has asked for anything is its own affair.
    let Ok(Some(protocol)) = protocol else { return };
    let answer = |request| {
        let guard = idle.begin();
        routes.answer(request, guard)
    };
    match protocol {
        Protocol::Http1 => {
            // A script may close its side once it has asked: `printf ... | nc -N`.
            let mut http1 = http1(MAX_HEAD_BYTES as usize);
            let service = service_fn(|request: http::Request<Incoming>| answer(request.map(Into::into)));
            let connection = pin!(http1.half_close(true).serve_connection(TokioIo::new(stream), service));
            drive(connection, owner, observed, &idle, stopped).await;
        }
        Protocol::Http2 => {
            let connection = pin!(http2().serve(stream, service_fn(answer), None));
            drive(connection, owner, observed, &idle, stopped).await;
        }
    }
}

async fn drive<T>(
    mut connection: Pin<&mut impl HttpConnection>,
    owner: &Owner<T>,
    observed: &Observed,
    idle: &IdleTracker,
    mut stopped: watch::Receiver<()>,
) {
    let mut stopping = false;
    loop {
        let progress = poll_fn(|cx| {
            observed.begin_turn();
            match connection.as_mut().poll_turn(cx, observed, || !idle.is_in_use() && !owner.blocked()) {
                // There are few connections, so none is parked.
                Poll::Ready(Turn::Paused) => Poll::Pending,
                progress => progress,
            }
        });
        tokio::select! {
            // A client that breaks the protocol or goes away is its own affair.
            _ = progress => return,
            _ = stopped.changed(), if !stopping => {
                stopping = true;
                // Unlike a port that drains, this one also ends connections without a request.
                connection.as_mut().go_away(false);
            }
            () = sleep_until(idle.expires()) => {
                if idle.expires() <= Instant::now() {
                    return;
                }
            }
        }
    }
}

fn http2() -> Http2 {
    let mut h2 = h2::server::Builder::new();
    h2.max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(Some(MAX_RESETS))
        .max_header_list_size(MAX_HEAD_BYTES);
    // A watching client that is gone without a word must not keep its permit.
    Http2 { h2, keepalive_interval: KEEPALIVE_INTERVAL, keepalive_timeout: KEEPALIVE_INTERVAL }
}

/// Whether a connection is in use, and until when it may be without use.
#[derive(Clone, Debug)]
struct IdleTracker(Arc<Mutex<IdleState>>);

#[derive(Debug)]
struct IdleState {
    open: usize,
    expires: Instant,
}

impl IdleTracker {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(IdleState { open: 0, expires: Instant::now() + FIRST_REQUEST_TIMEOUT })))
    }

    fn begin(&self) -> RequestGuard {
        self.update(|idle| idle.open += 1);
        RequestGuard(self.clone())
    }

    /// Whether a request is being answered.
    fn is_in_use(&self) -> bool {
        self.state().open > 0
    }

    /// When it is to be closed, as far as is known now.
    fn expires(&self) -> Instant {
        let idle = self.state();
        if idle.open > 0 { Instant::now() + IDLE_TIMEOUT } else { idle.expires }
    }

    fn update(&self, change: impl FnOnce(&mut IdleState)) {
        let mut idle = self.state();
        change(&mut idle);
        idle.expires = Instant::now() + IDLE_TIMEOUT;
    }

    fn state(&self) -> MutexGuard<'_, IdleState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub struct RequestGuard(IdleTracker);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.update(|idle| idle.open -= 1);
    }
}

#[cfg(test)]
mod tests {
    use hyper::client::conn::http2;
    use hyper_util::rt::{TokioExecutor, TokioTimer};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        task::JoinHandle,
        time::timeout,
    };
    use tonic::body::Body;

    use super::*;
    use crate::proto::health::health_client::HealthClient;

    /// One end of a served connection, the task that serves it, and what stops it.
    fn connect() -> (tokio::io::DuplexStream, JoinHandle<()>, watch::Sender<()>) {
        let (client, server) = duplex(16 * 1_024);
        let routes = Routes::detached();
        let (stop, stopped) = watch::channel(());
        (
            client,
            tokio::spawn(serve(
                server,
                routes,
                stopped,
                Closes::of("admin"),
                PolicedConnections::of("admin"),
            )),
            stop,
        )
    }

    /// How long a client that says nothing is waited for when its connection ends.
    const LINGERING: u64 = 2;

    /// How long it takes the server to close, in whole seconds of a clock that the test drives.
    async fn closes_after(served: JoinHandle<()>) -> u64 {
        let begun = Instant::now();
        served.await.unwrap();
        begun.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_asks_for_nothing_is_closed_soon() {
        let (client, served, _stop) = connect();
        assert_eq!(closes_after(served).await, 10 + LINGERING);
        drop(client);
        let (mut client, served, _stop) = connect();
        client.write_all(b"GET /livez HTT").await.unwrap();
        assert_eq!(closes_after(served).await, 10 + LINGERING, "half a line is nothing");
        let (mut client, served, _stop) = connect();
        client.write_all(b"GET /livez HTTP/1.1\r\nhost: ").await.unwrap();
        assert_eq!(closes_after(served).await, 5 + LINGERING, "half a head is one that crawls");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_kept_from_one_scrape_to_the_next_and_no_longer() {
        let (mut client, served, _stop) = connect();
        let mut answer = [0; 1_024];
        for _ in 0..3 {
            client.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let len = client.read(&mut answer).await.unwrap();
            assert!(answer[..len].starts_with(b"HTTP/1.1 200"), "{:?}", &answer[..len]);
            tokio::time::sleep(Duration::from_mins(1)).await;
        }
        assert!(!served.is_finished());
        assert!(closes_after(served).await <= 61 + LINGERING);
    }

    #[tokio::test(start_paused = true)]
    async fn a_watching_client_keeps_its_place_until_the_port_stops() {
        let (client, served, stop) = connect();
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        let (sender, connection) =
            http2.timer(TokioTimer::new()).handshake::<_, Body>(TokioIo::new(client)).await.unwrap();
        drop(tokio::spawn(connection));
        let service = tower::service_fn(move |request| {
            let mut sender = sender.clone();
            async move { sender.send_request(request).await }
        });
        let mut health = HealthClient::with_origin(service, "http://admin".parse().unwrap());
        let request = tonic_health::pb::HealthCheckRequest::default();
        let mut watched = health.watch(request).await.unwrap().into_inner();
        watched.message().await.unwrap().expect("the first status");
        assert!(timeout(Duration::from_hours(1), watched.message()).await.is_err(), "it goes on");
        drop((watched, health, stop));
        timeout(Duration::from_mins(1), served).await.expect("nothing holds it any more").unwrap();
    }
}
