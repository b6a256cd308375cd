//! The body of an answer with frames: those of the layers, and the status as the last one.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame};
use pin_project_lite::pin_project;
use prost_reflect::MessageDescriptor;

use super::{
    answer::MIN_PACKED_BYTES,
    connect_error,
    format::Wire,
    frames::{self, FrameReader, MessageFrame, PACKED},
    json,
    schema::Schema,
    text,
};
use crate::{rpc::status, util::gzip};

/// The flag of the last frame in Connect.
pub const END_OF_STREAM: u8 = 0b10;

/// The flag of the last frame in gRPC-Web.
const TRAILERS: u8 = 0x80;

pin_project! {
    /// The frames of an answer, translated as they come.
    pub struct AnswerStream<R> {
        #[pin]
        inner: R,
        schema: Arc<Schema>,
        wire: Wire,
        messages: MessageWriter,
        frames: FrameReader,
        has_ended: bool,
    }
}

/// How the messages of an answer are written.
struct MessageWriter {
    /// The message, where it is written in JSON.
    json: Option<MessageDescriptor>,
    packs: bool,
}

impl MessageWriter {
    /// Whether they are written as the layers wrote them.
    fn is_plain(&self) -> bool {
        self.json.is_none() && !self.packs
    }

    /// One message; `None` where it cannot be written.
    fn write(&self, frame: MessageFrame) -> Option<Bytes> {
        let MessageFrame { flag, mut message } = frame;
        if let Some(descriptor) = &self.json {
            message = json::of_proto(descriptor, Some(message).filter(|_| flag == 0)?)?.into();
        }
        let packs = self.packs && flag == 0 && message.len() >= MIN_PACKED_BYTES;
        match packs.then(|| gzip::pack(&message)).flatten() {
            Some(packed) => Some(frames::framed(PACKED, &packed)),
            None => Some(frames::framed(flag, &message)),
        }
    }
}

impl<R> AnswerStream<R> {
    pub fn new(
        inner: R,
        schema: Arc<Schema>,
        wire: Wire,
        json: Option<MessageDescriptor>,
        packs: bool,
    ) -> Self {
        let messages = MessageWriter { json, packs };
        Self { inner, schema, wire, messages, frames: FrameReader::default(), has_ended: false }
    }

    pub fn is_end(&self) -> bool {
        self.has_ended
    }
}

impl<R: Body<Data = Bytes>> AnswerStream<R> {
    /// What [`Body::poll_frame`] returns.
    pub fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
        let mut this = self.project();
        let written = |bytes: Bytes| {
            let bytes = if *this.wire == Wire::WebText { text::encode(&bytes) } else { bytes };
            Poll::Ready(Some(Ok(Frame::data(bytes))))
        };
        if *this.has_ended {
            return Poll::Ready(None);
        }
        let trailers = loop {
            if let Ok(Some(frame)) = this.frames.next(usize::MAX) {
                match this.messages.write(frame) {
                    Some(bytes) => return written(bytes),
                    None => break status::trailers(&status::internal()),
                }
            }
            match ready!(this.inner.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) if this.messages.is_plain() => return written(bytes),
                    Ok(bytes) => this.frames.push(&bytes),
                    Err(frame) => break frame.into_trailers().unwrap_or_default(),
                },
                Some(Err(error)) => {
                    *this.has_ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                None => break HeaderMap::new(),
            }
        };
        *this.has_ended = true;
        match this.wire {
            Wire::Grpc => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Wire::Web | Wire::WebText => written(frames::framed(TRAILERS, &web_trailers(&trailers))),
            Wire::ConnectUnary | Wire::ConnectStream => {
                let end = connect_error::end_of_stream(this.schema, &trailers);
                written(frames::framed(END_OF_STREAM, &end))
            }
        }
    }
}

/// Trailers as lines of HTTP/1.1, with names in lower case.
fn web_trailers(trailers: &HeaderMap) -> BytesMut {
    let line = |lines: &mut BytesMut, (name, value): (&HeaderName, &HeaderValue)| {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            lines.put_slice(part);
        }
    };
    let mut lines = BytesMut::new();
    trailers.iter().for_each(|trailer| line(&mut lines, trailer));
    lines
}
