//! Counting the calls in flight: on one connection, to know when it is idle, and
//! on one thread, to know what a drain would cut. A call is in flight until the last of
//! its answer has left for the socket.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::Service;

use super::{
    connection_state::ConnectionState,
    incoming_body::IncomingBody,
    request_rest::{Discarding, RequestBody, Slot},
    sending::Sending,
};
use crate::rpc::{
    call::{Call, Inbound},
    unread::Unread,
};

/// One call: in flight until the last clone is dropped. h2 has one with every frame of
/// DATA that waits for the client's window or for the socket.
#[derive(Clone, Debug)]
pub struct OpenCall(Arc<Open>);

#[derive(Debug)]
struct Open {
    shared: Arc<ConnectionState>,
    rest: Slot,
    /// The answer is complete, and the connection answers for its delivery.
    handed_over: AtomicBool,
}

impl OpenCall {
    fn on(shared: &Arc<ConnectionState>) -> Self {
        shared.begin_call();
        let shared = Arc::clone(shared);
        Self(Arc::new(Open { shared, rest: Slot::default(), handed_over: AtomicBool::new(false) }))
    }

    pub fn rest(&self) -> &Slot {
        &self.0.rest
    }

    pub fn unread(&self) -> &Unread {
        self.0.shared.handle.unread()
    }

    /// The answer is complete. What is not sent of it counts as undelivered, where its
    /// connection is about to go, and no longer as a call.
    fn answered(&self) {
        let shared = &self.0.shared;
        if shared.handle.is_going_away() && !self.0.handed_over.swap(true, Relaxed) {
            shared.hand_over();
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.end_call(self.handed_over.load(Relaxed));
    }
}

/// A call whose answer is still to come or to end.
#[derive(Debug)]
struct Answering(OpenCall);

impl Drop for Answering {
    fn drop(&mut self) {
        // **Invariant:** h2 drops DATA while it holds a lock that a dropped request takes,
        // so no clone of the call holds one once there is no answer to wait for it.
        drop(self.0.rest().close());
    }
}

/// Hands the calls of one connection to the service, and counts each until its answer
/// has been sent.
#[derive(Clone, Debug)]
pub struct CountCalls<S> {
    service: S,
    shared: Arc<ConnectionState>,
}

impl<S> CountCalls<S> {
    pub fn new(service: S, shared: Arc<ConnectionState>) -> Self {
        Self { service, shared }
    }
}

impl<S, B, I> hyper::service::Service<Request<I>> for CountCalls<S>
where
    I: Into<IncomingBody>,
    S: Service<Request<Inbound<RequestBody>>, Response = Response<B>, Error = Infallible> + Clone,
    B: Body<Data = Bytes>,
{
    type Response = Response<CountedBody<B>>;
    type Error = Infallible;
    type Future = CountedFuture<S::Future, B>;

    fn call(&self, request: Request<I>) -> Self::Future {
        let call = OpenCall::on(&self.shared);
        let request = Inbound::request(RequestBody::of(request, &call), Call::on(self.shared.handle.clone()));
        // `poll_ready` is skipped: the admission layer answers UNAVAILABLE when it is full.
        let inner = Some(self.service.clone().call(request));
        CountedFuture { inner, answering: Some(Answering(call)), waiting: None }
    }
}

pin_project! {
    /// The response's head to come.
    pub struct CountedFuture<F, B> {
        #[pin]
        inner: Option<F>,
        answering: Option<Answering>,
        // An answer that is all in its head, and the rest of the request that it waits for.
        waiting: Option<Box<(Response<B>, Discarding)>>,
    }
}

impl<F, B> Future for CountedFuture<F, B>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
    B: Body<Data = Bytes>,
{
    type Output = Result<Response<CountedBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let mut response = None;
        if let Some(inner) = this.inner.as_mut().as_pin_mut() {
            let Ok(answer) = ready!(inner.poll(cx));
            this.inner.set(None);
            response = Some(answer);
        }
        if let (Some(answer), Some(Answering(call))) = (&response, &*this.answering)
            && answer.body().is_end_stream()
        {
            call.answered();
            if let Some(rest) = call.rest().discard(cx) {
                *this.waiting = response.take().map(|answer| Box::new((answer, rest)));
            }
        }
        if let Some((_, rest)) = this.waiting.as_deref_mut() {
            ready!(rest.poll(cx));
            response = this.waiting.take().map(|waited| waited.0);
        }
        let response = response.expect("a future is not polled after its end");
        let answering = this.answering.take();
        Poll::Ready(Ok(response.map(|inner| CountedBody { inner: Some(inner), answering, rest: None })))
    }
}

pin_project! {
    /// The response's body, with its call.
    pub struct CountedBody<B> {
        #[pin]
        inner: Option<B>,
        answering: Option<Answering>,
        // What the end of the answer waits for.
        rest: Option<Box<Discarding>>,
    }
}

impl<B> CountedBody<B> {
    /// Whether the request's client still waits to be told to send it.
    pub fn is_request_unasked(&self) -> bool {
        self.answering.as_ref().is_some_and(|Answering(call)| call.rest().is_unasked())
    }
}

impl<B: Body<Data = Bytes>> Body for CountedBody<B> {
    type Data = Sending;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Sending>, B::Error>>> {
        let mut this = self.project();
        let Some(Answering(call)) = this.answering.as_ref() else { return Poll::Ready(None) };
        if let Some(inner) = this.inner.as_mut().as_pin_mut() {
            let trailers = match ready!(inner.poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => {
                        let data = Sending::new(bytes, call.clone());
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    Err(frame) => frame.into_trailers().ok(),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => None,
            };
            // The service lets go of the request here, where it has not done so before.
            this.inner.set(None);
            call.answered();
            let Some(rest) = call.rest().discard(cx) else {
                return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
            };
            // Over HTTP/1.1, where no answer has trailers.
            *this.rest = Some(Box::new(rest));
        }
        if let Some(rest) = this.rest {
            ready!(rest.poll(cx));
            *this.rest = None;
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        let Some(Answering(call)) = &self.answering else { return true };
        match &self.inner {
            Some(inner) => inner.is_end_stream() && !call.rest().is_left(),
            None => self.rest.is_none(),
        }
    }

    /// Unknown where the end of the answer waits for the rest of the request: over HTTP/1.1
    /// an answer of a known size ends with its last byte, and its connection with it.
    fn size_hint(&self) -> SizeHint {
        match (&self.inner, &self.answering) {
            (Some(_), Some(Answering(call))) if call.rest().is_left() => SizeHint::default(),
            (Some(inner), _) => inner.size_hint(),
            (None, _) => SizeHint::with_exact(0),
        }
    }
}
