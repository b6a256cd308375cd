//! The rest of a request that was answered before it had ended.
//!
//! RFC 9113, section 8.1 lets a server answer early and send `RST_STREAM(NO_ERROR)` after
//! the end of its answer. Some proxies, `HAProxy` among them, take the reset for the
//! answer and lose the status. So the rest of the request is read and discarded, within
//! bounds, before the stream is reset. Over HTTP/2 the answer ends before that: its client
//! then sends no more, and there is no reset. Over HTTP/1.1 the end of the answer waits,
//! because hyper closes a connection whose answer ends before its request.
//!
//! **Invariant:** a request that is not read to its end costs no more than [`MOST`] and
//! [`MOST_BYTES`]; after that it is reset as before.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Version, header::EXPECT};
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{http_connection::BoxError, in_flight::OpenCall, incoming_body::IncomingBody};

/// The longest that the rest of a request is read.
const MOST: Duration = Duration::from_secs(5);

/// The longest that a rest may pause before it is given up: a stream's client may have
/// nothing to send until it has the answer.
const PAUSE: Duration = Duration::from_secs(1);

/// The most bytes of a rest that are read.
const MOST_BYTES: usize = 4 * 1_024 * 1_024;

/// Where the rest of a request is left.
#[derive(Debug, Default)]
pub struct Slot(Mutex<RequestRest>);

#[derive(Debug, Default)]
enum RequestRest {
    /// The request is being read, or was read to its end.
    #[default]
    Read,
    Left(IncomingBody, Version),
    /// The client waits to be told to send it, and was not told.
    Unasked,
    /// There is no answer that would wait.
    Closed,
}

impl Slot {
    /// Leaves a request that was not read to its end.
    fn leave(&self, request: IncomingBody, version: Version) {
        let mut state = self.lock();
        if matches!(*state, RequestRest::Read) {
            *state = RequestRest::Left(request, version);
        } else {
            // A dropped request takes a lock of h2's, which may be held by who waits for this one.
            drop(state);
            drop(request);
        }
    }

    /// Leaves a request whose client has not been told to send it.
    fn leave_unasked(&self) {
        let mut state = self.lock();
        if matches!(*state, RequestRest::Read) {
            *state = RequestRest::Unasked;
        }
    }

    pub fn is_unasked(&self) -> bool {
        matches!(*self.lock(), RequestRest::Unasked)
    }

    pub fn is_left(&self) -> bool {
        matches!(*self.lock(), RequestRest::Left(..))
    }

    /// Takes what was left. Nothing can be left afterwards.
    pub fn close(&self) -> Option<(IncomingBody, Version)> {
        let mut state = self.lock();
        if matches!(*state, RequestRest::Unasked) {
            return None;
        }
        match std::mem::replace(&mut *state, RequestRest::Closed) {
            RequestRest::Left(request, version) => Some((request, version)),
            _ => None,
        }
    }

    /// The answer is complete but for its end. Returns what the end waits for.
    pub fn discard(&self, cx: &mut Context<'_>) -> Option<Discarding> {
        let (request, version) = self.close()?;
        let mut rest = Discarding::new(request);
        // As a rule all of a refused request has arrived, and refusing has to be cheap.
        if rest.poll(cx).is_ready() {
            return None;
        }
        if version == Version::HTTP_2 {
            drop(tokio::spawn(poll_fn(move |cx| rest.poll(cx))));
            return None;
        }
        Some(rest)
    }

    fn lock(&self) -> MutexGuard<'_, RequestRest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request's body. Dropped before its end it leaves the rest to the answer.
#[derive(Debug)]
pub struct RequestBody {
    /// `None` only while it is dropped.
    inner: Option<IncomingBody>,
    call: OpenCall,
    version: Version,
    /// The client sends it once it is told to, which hyper does when it is first read.
    is_unasked: bool,
}

impl RequestBody {
    pub fn of(request: Request<impl Into<IncomingBody>>, call: &OpenCall) -> Request<Self> {
        // HTTP/2 has it as well, and its clients are not told.
        let version = request.version();
        let is_unasked = version == Version::HTTP_11 && request.headers().contains_key(EXPECT);
        request.map(|inner| Self { inner: Some(inner.into()), call: call.clone(), version, is_unasked })
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(request) = self.inner.take().filter(|request| !request.is_end_stream()) {
            if self.is_unasked {
                self.call.rest().leave_unasked();
            } else {
                self.call.rest().leave(request, self.version);
            }
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.is_unasked = false;
        match &mut self.inner {
            Some(request) => Pin::new(request).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }
}

/// A rest that is being read.
#[derive(Debug)]
pub struct Discarding {
    request: IncomingBody,
    bytes: usize,
    /// When the rest is given up; set once it is waited for.
    alarm: Option<Alarm>,
}

#[derive(Debug)]
struct Alarm {
    /// The end of [`MOST`].
    until: Instant,
    pause: Pin<Box<Sleep>>,
}

impl Discarding {
    fn new(request: IncomingBody) -> Self {
        Self { request, bytes: 0, alarm: None }
    }

    /// Ready once the request has ended, or one of the bounds is reached.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut has_read = false;
        while let Poll::Ready(frame) = Pin::new(&mut self.request).poll_frame(cx) {
            let Some(Ok(frame)) = frame else { return Poll::Ready(()) };
            self.bytes += frame.data_ref().map_or(0, Bytes::len);
            if self.bytes > MOST_BYTES {
                return Poll::Ready(());
            }
            has_read = true;
        }
        let alarm = match &mut self.alarm {
            Some(alarm) => {
                if has_read {
                    alarm.pause.as_mut().reset(alarm.until.min(Instant::now() + PAUSE));
                }
                alarm
            }
            none => {
                let now = Instant::now();
                none.insert(Alarm { until: now + MOST, pause: Box::pin(sleep_until(now + PAUSE)) })
            }
        };
        alarm.pause.as_mut().poll(cx)
    }
}
