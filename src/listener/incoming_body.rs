//! The body of a request, of either protocol.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Body, Frame};
use hyper::body::Incoming;

use super::http_connection::BoxError;

/// A request's body.
#[derive(Debug)]
pub enum IncomingBody {
    Http1(Incoming),
    Http2(StreamBody),
}

impl From<Incoming> for IncomingBody {
    fn from(body: Incoming) -> Self {
        Self::Http1(body)
    }
}

impl From<StreamBody> for IncomingBody {
    fn from(body: StreamBody) -> Self {
        Self::Http2(body)
    }
}

impl IncomingBody {
    /// Whether a request over HTTP/2 that nothing was read of yet has arrived whole. Nothing of
    /// it is lost by asking once.
    pub fn has_arrived(&mut self) -> bool {
        match self {
            Self::Http1(_) => false,
            Self::Http2(body) => body.has_arrived(),
        }
    }
}

impl Body for IncomingBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Http2(body) => body.poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }
}

/// The body of a stream of HTTP/2.
#[derive(Debug)]
pub struct StreamBody {
    stream: RecvStream,
    /// What was read of it before, in a box because most have none.
    first: Option<Box<Bytes>>,
    /// To ask h2 takes a lock.
    is_over: bool,
}

impl StreamBody {
    pub fn new(stream: RecvStream) -> Self {
        Self { stream, first: None, is_over: false }
    }

    /// Whether it has arrived whole, in one DATA at most, which is kept to be read.
    fn has_arrived(&mut self) -> bool {
        if let Poll::Ready(Some(Ok(bytes))) = self.stream.poll_data(&mut Context::from_waker(Waker::noop())) {
            // It fails for a stream that has ended, which needs no window.
            let _ = self.stream.flow_control().release_capacity(bytes.len());
            self.first = Some(Box::new(bytes));
        }
        self.stream.is_end_stream()
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(*first))));
        }
        if let Some(data) = ready!(self.stream.poll_data(cx)) {
            let bytes = data?;
            // It fails for a stream that has ended, which needs no window.
            let _ = self.stream.flow_control().release_capacity(bytes.len());
            self.is_over = self.stream.is_end_stream();
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        let trailers = ready!(self.stream.poll_trailers(cx))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.first.is_none() && self.stream.is_end_stream()
    }
}
