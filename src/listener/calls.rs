//! Counting the calls in flight: on one connection, to know when it is idle, and
//! on one thread, to know what a drain would cut.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::Service;

use super::meter::State;
use crate::service::{
    call::{Call, Inbound},
    leaving::Farewells,
};

/// What one serving thread carries.
#[derive(Debug, Default)]
pub struct Load {
    thread: usize,
    pub connections: AtomicUsize,
    pub calls: AtomicUsize,
}

impl Load {
    /// Of the thread of this number.
    pub fn of(thread: usize) -> Self {
        Self { thread, ..Self::default() }
    }
}

/// The calls of one connection.
#[derive(Debug)]
pub struct Tally {
    load: Arc<Load>,
    pub born: Instant,
    /// A [`State`].
    state: AtomicU8,
    calls: AtomicUsize,
    /// Tells calls that the connection is to go away.
    pub farewells: Farewells,
    /// When the last call ended, in milliseconds since `born`.
    idle_since_ms: AtomicU64,
}

impl Tally {
    pub fn new(load: Arc<Load>, born: Instant) -> Self {
        static CONNECTIONS: AtomicU64 = AtomicU64::new(1);
        Self {
            load,
            born,
            state: AtomicU8::new(State::Handshake as u8),
            calls: AtomicUsize::new(0),
            farewells: Farewells::of(CONNECTIONS.fetch_add(1, Relaxed)),
            idle_since_ms: AtomicU64::new(0),
        }
    }

    /// The number of the connection, which no other one of this process has.
    pub fn number(&self) -> u64 {
        self.farewells.connection
    }

    pub fn thread(&self) -> usize {
        self.load.thread
    }

    pub fn state(&self) -> State {
        State::ALL[usize::from(self.state.load(Relaxed)) % State::ALL.len()]
    }

    pub fn enter(&self, state: State) {
        self.state.store(state as u8, Relaxed);
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Relaxed)
    }

    /// When the connection last had a call; `None` while it has one.
    pub fn idle_since(&self) -> Option<Instant> {
        let since = Duration::from_millis(self.idle_since_ms.load(Relaxed));
        (self.calls() == 0).then(|| self.born + since)
    }
}

/// Counts a call as in flight until it is dropped.
#[derive(Debug)]
struct Mark(Arc<Tally>);

impl Mark {
    fn set(tally: &Arc<Tally>) -> Self {
        tally.calls.fetch_add(1, Relaxed);
        tally.load.calls.fetch_add(1, Relaxed);
        Self(Arc::clone(tally))
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let Self(tally) = self;
        tally.load.calls.fetch_sub(1, Relaxed);
        if tally.calls.fetch_sub(1, Relaxed) == 1 {
            let since = u64::try_from(tally.born.elapsed().as_millis()).unwrap_or(u64::MAX);
            tally.idle_since_ms.store(since, Relaxed);
        }
    }
}

/// Hands the calls of one connection to the service, and counts each until the
/// body of its response has ended.
#[derive(Clone, Debug)]
pub struct Counted<S> {
    service: S,
    tally: Arc<Tally>,
}

impl<S> Counted<S> {
    pub fn new(service: S, tally: Arc<Tally>) -> Self {
        Self { service, tally }
    }
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Counted<S>
where
    S: Service<Request<Inbound<Incoming>>, Response = Response<B>, Error = Infallible> + Clone,
{
    type Response = Response<CountedBody<B>>;
    type Error = Infallible;
    type Future = CountedFuture<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let request = Inbound::request(request, Call::on(self.tally.farewells.clone()));
        let mark = Mark::set(&self.tally);
        // Whoever is full answers that, so nobody need be asked whether it is ready.
        CountedFuture { inner: self.service.clone().call(request), mark: Some(mark) }
    }
}

pin_project! {
    /// The response's head to come.
    pub struct CountedFuture<F> {
        #[pin]
        inner: F,
        mark: Option<Mark>,
    }
}

impl<F, B> Future for CountedFuture<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = Result<Response<CountedBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = match ready!(this.inner.poll(cx)) {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let mark = this.mark.take();
        Poll::Ready(Ok(response.map(|inner| CountedBody { inner, mark })))
    }
}

pin_project! {
    /// The response's body, with its mark.
    pub struct CountedBody<B> {
        #[pin]
        inner: B,
        mark: Option<Mark>,
    }
}

impl<B: Body> Body for CountedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().inner.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
