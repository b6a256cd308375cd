//! A request's body, as the layers read it: gRPC.
//!
//! **Invariant:** nothing is kept here that a limit does not bound, and nothing is read
//! before the layers ask for it. So admission, deadlines and caps hold as for gRPC.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use pin_project_lite::pin_project;
use prost_reflect::MessageDescriptor;
use tonic::Status;

use super::{
    frames::{self, FrameReader, MessageFrame, PACKED},
    json,
    text::{NoBase64, TextReader},
};
use crate::rpc::{
    framing::{self, TooLarge},
    goaway::ConnectionHandle,
    permits::PartialBytes,
    status,
};

type BoxError = Box<dyn Error + Send + Sync>;

pin_project! {
    /// The body that the layers read.
    #[project = EdgeBodyProjection]
    pub enum EdgeBody<B> {
        /// As it came.
        Grpc { #[pin] inner: B },
        Translated { inner: Pin<Box<Translated<B>>> },
        /// Nothing.
        Empty,
    }
}

impl<B> EdgeBody<B> {
    pub fn translated(inner: B, translation: Translation, connection: ConnectionHandle) -> Self {
        Self::Translated { inner: Box::pin(Translated { inner, translation, connection }) }
    }
}

impl<B> Body for EdgeBody<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project() {
            EdgeBodyProjection::Grpc { inner } => {
                inner.poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Into::into)))
            }
            EdgeBodyProjection::Translated { inner } => {
                inner.as_mut().poll(cx).map(|bytes| bytes.map(|bytes| bytes.map(Frame::data)))
            }
            EdgeBodyProjection::Empty => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Grpc { inner } => inner.is_end_stream(),
            Self::Translated { inner } => inner.is_end(),
            Self::Empty => true,
        }
    }
}

/// How the messages of a request are read.
#[derive(Debug)]
pub struct MessageReader {
    /// The message, where it is written in JSON.
    pub json: Option<MessageDescriptor>,
    /// Whether messages may be packed.
    pub gzip: bool,
    /// The most bytes of a message, as sent and as unpacked.
    pub limit: usize,
}

impl MessageReader {
    /// A message as gRPC frames it.
    fn framed(&self, frame: MessageFrame) -> Result<Bytes, Status> {
        let MessageFrame { flag, mut message } = frame;
        let Some(descriptor) = &self.json else { return Ok(frames::framed(flag, &message)) };
        match flag {
            0 => {}
            PACKED if self.gzip => message = framing::unpack(&message, self.limit)?,
            PACKED => return Err(status::malformed("a message is compressed, and no header says how")),
            _ => return Err(status::malformed("a message has a flag that is neither 0 nor 1")),
        }
        Ok(frames::framed(0, &json::to_proto(descriptor, &message)?))
    }
}

/// How a request's bytes are translated.
#[derive(Debug)]
pub enum Translation {
    /// The request is refused when it is read.
    Refused(Box<Status>),
    /// The message is in the request's head.
    Ready(Bytes, MessageReader),
    /// The body is a message of a length that is known: its prefix goes first.
    Prefixed(Bytes),
    /// The body passes as it is.
    Passing,
    /// The body is a message, which is kept until it is whole.
    Whole {
        kept: BytesMut,
        partial: PartialBytes,
        reader: MessageReader,
    },
    /// The body has frames, in base64 where there is a reader of text.
    Framed {
        text: Option<TextReader>,
        frames: FrameReader,
        /// `None` for a stream, of which there are few: each has a permit.
        partial: Option<PartialBytes>,
        reader: MessageReader,
    },
    Done,
}

impl Translation {
    pub fn whole(reader: MessageReader) -> Self {
        Self::Whole { kept: BytesMut::new(), partial: PartialBytes::default(), reader }
    }

    pub fn framed(reader: MessageReader, is_text: bool, streams: bool) -> Self {
        Self::Framed {
            text: is_text.then(TextReader::default),
            frames: FrameReader::default(),
            partial: (!streams).then(PartialBytes::default),
            reader,
        }
    }
}

pin_project! {
    /// A body that is read as gRPC.
    #[derive(Debug)]
    pub struct Translated<B> {
        #[pin]
        inner: B,
        translation: Translation,
        // Where it comes from.
        connection: ConnectionHandle,
    }
}

impl<B> Translated<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    fn is_end(&self) -> bool {
        match &self.translation {
            Translation::Passing => self.inner.is_end_stream(),
            Translation::Done => true,
            _ => false,
        }
    }

    /// The next bytes. None come after an error.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        let polled = ready!(self.as_mut().poll_open(cx));
        if !matches!(polled, Some(Ok(_))) {
            *self.project().translation = Translation::Done;
        }
        Poll::Ready(polled)
    }

    fn poll_open(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        let mut this = self.project();
        loop {
            match this.translation {
                Translation::Done => return Poll::Ready(None),
                Translation::Prefixed(_) => {
                    if let Translation::Prefixed(prefix) =
                        std::mem::replace(this.translation, Translation::Passing)
                    {
                        return Poll::Ready(Some(Ok(prefix)));
                    }
                }
                Translation::Passing => return poll_data(this.inner.as_mut(), cx),
                Translation::Refused(_) | Translation::Ready(..) => {
                    let answer = match std::mem::replace(this.translation, Translation::Done) {
                        Translation::Refused(status) => Err(BoxError::from(*status)),
                        Translation::Ready(message, reader) => whole(message, &reader),
                        _ => return Poll::Ready(None),
                    };
                    return Poll::Ready(Some(answer));
                }
                Translation::Whole { kept, partial, reader } => {
                    match ready!(poll_data(this.inner.as_mut(), cx)) {
                        Some(Ok(bytes)) if kept.len() + bytes.len() > reader.limit => {
                            return Poll::Ready(Some(Err(status::message_too_large(reader.limit).into())));
                        }
                        Some(Ok(bytes)) => {
                            kept.extend_from_slice(&bytes);
                            if !this.inner.is_end_stream() && !partial.keep(kept.len(), this.connection) {
                                return Poll::Ready(Some(Err(status::overloaded().into())));
                            }
                        }
                        None => {
                            let message = std::mem::take(kept).freeze();
                            let answer = whole(message, reader);
                            *this.translation = Translation::Done;
                            return Poll::Ready(Some(answer));
                        }
                        failed => return Poll::Ready(failed),
                    }
                }
                Translation::Framed { text, frames, partial, reader } => {
                    match frames.next(reader.limit) {
                        Ok(Some(frame)) => {
                            // From here on the message is its reader's to count.
                            *partial = partial.take().map(|_| PartialBytes::default());
                            return Poll::Ready(Some(reader.framed(frame).map_err(Into::into)));
                        }
                        Ok(None) => {
                            if !this.inner.is_end_stream()
                                && let Some(partial) = partial
                                && !partial.keep(frames.len(), this.connection)
                            {
                                return Poll::Ready(Some(Err(status::overloaded().into())));
                            }
                        }
                        Err(TooLarge) => {
                            return Poll::Ready(Some(Err(status::message_too_large(reader.limit).into())));
                        }
                    }
                    let is_whole = frames.is_empty() && text.as_ref().is_none_or(TextReader::is_whole);
                    match ready!(poll_data(this.inner.as_mut(), cx)) {
                        Some(Ok(bytes)) => {
                            let read = match text {
                                None => Ok(bytes),
                                Some(text) => text
                                    .read(&bytes)
                                    .map_err(|NoBase64| status::malformed("the body is not base64")),
                            };
                            match read {
                                Ok(bytes) => frames.push(&bytes),
                                Err(status) => return Poll::Ready(Some(Err(status.into()))),
                            }
                        }
                        None if is_whole => return Poll::Ready(None),
                        None => {
                            let error = status::malformed("the last message is cut short");
                            return Poll::Ready(Some(Err(error.into())));
                        }
                        failed => return Poll::Ready(failed),
                    }
                }
            }
        }
    }
}

/// The next bytes of a body. Trailers of a request say nothing that is used.
fn poll_data<B>(mut body: Pin<&mut B>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    loop {
        match ready!(body.as_mut().poll_frame(cx)) {
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data() {
                    return Poll::Ready(Some(Ok(bytes)));
                }
            }
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => return Poll::Ready(None),
        }
    }
}

/// A whole message of a request without frames. An empty one is not packed, whatever the
/// head says.
fn whole(message: Bytes, reader: &MessageReader) -> Result<Bytes, BoxError> {
    let flag = if reader.gzip && !message.is_empty() { PACKED } else { 0 };
    Ok(reader.framed(MessageFrame { flag, message })?)
}
