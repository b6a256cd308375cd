//! The body of an answer.

use std::{
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use crate::rpc::{headers::GRPC_STATUS, permits::Permit};

/// The trailers of an answer. To clone them is quicker than to insert them.
static OK: LazyLock<HeaderMap> =
    LazyLock::new(|| HeaderMap::from_iter([(GRPC_STATUS.clone(), HeaderValue::from_static("0"))]));

/// What a call is answered with: one message, or whatever tonic streams.
///
/// A unary answer is one frame of data and the trailers that say OK; it needs no
/// box and no encoder. [`Default`] is a body of nothing, for answers that are all
/// in their head.
#[derive(Debug, Default)]
pub struct ResponseBody {
    part: Part,
    /// The place of a unary call, until the answer has been taken.
    _place: Option<Permit>,
}

#[derive(Debug, Default)]
enum Part {
    Message(Bytes),
    Ok,
    #[default]
    End,
    Stream(tonic::body::Body),
}

impl ResponseBody {
    /// One message with its prefix, of a call that has this place.
    pub fn message(message: Bytes, place: Option<Permit>) -> Self {
        Self { part: Part::Message(message), _place: place }
    }
}

impl From<tonic::body::Body> for ResponseBody {
    fn from(body: tonic::body::Body) -> Self {
        Self { part: Part::Stream(body), _place: None }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let (frame, next) = match &mut self.part {
            Part::Message(message) => (Frame::data(std::mem::take(message)), Part::Ok),
            Part::Ok => (Frame::trailers(OK.clone()), Part::End),
            Part::End => return Poll::Ready(None),
            Part::Stream(body) => return Pin::new(body).poll_frame(cx),
        };
        self.part = next;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.part {
            Part::Message(_) | Part::Ok => false,
            Part::End => true,
            Part::Stream(body) => body.is_end_stream(),
        }
    }

    /// Unknown while there is anything to come: a known size would be sent as a
    /// `content-length`, which no gRPC client reads.
    fn size_hint(&self) -> SizeHint {
        match &self.part {
            Part::Message(_) | Part::Ok => SizeHint::default(),
            Part::End => SizeHint::with_exact(0),
            Part::Stream(body) => body.size_hint(),
        }
    }
}
