//! The answer of the layers, as the caller's protocol writes it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS},
};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use pin_project_lite::pin_project;
use tonic::{Code, Status};

use super::{
    answer_stream::{AnswerStream, END_OF_STREAM},
    connect_error::{self, WireError, is_metadata},
    format::{Codec, Format, Wire},
    frames::{self, FrameReader, MessageFrame},
    json,
    request_head::{CONNECT_CONTENT_ENCODING, GRPC_ACCEPT_ENCODING, GZIP},
    schema::{MethodSchema, Schema},
};
use crate::{
    rpc::{codes, status},
    util::gzip,
};

/// The least bytes of a message that is packed: a smaller one would hardly shrink.
pub const MIN_PACKED_BYTES: usize = 1_024;

pin_project! {
    /// The body of an answer.
    #[project = EdgeAnswerProjection]
    pub enum EdgeAnswer<R> {
        /// As the layers made it.
        Grpc { #[pin] inner: R },
        /// All of it. It holds the answer of the layers, and with it the call's permit,
        /// until it is taken.
        Whole { bytes: Option<Bytes>, held: Option<Pin<Box<R>>> },
        Stream { stream: Pin<Box<AnswerStream<R>>> },
    }
}

impl<R> EdgeAnswer<R> {
    /// A body that is at hand.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole { bytes: Some(bytes.into()).filter(|bytes: &Bytes| !bytes.is_empty()), held: None }
    }
}

impl<R: Body<Data = Bytes>> Body for EdgeAnswer<R> {
    type Data = Bytes;
    type Error = R::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
        match self.project() {
            EdgeAnswerProjection::Grpc { inner } => inner.poll_frame(cx),
            EdgeAnswerProjection::Whole { bytes, held } => {
                *held = None;
                Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))))
            }
            EdgeAnswerProjection::Stream { stream } => stream.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Grpc { inner } => inner.is_end_stream(),
            Self::Whole { bytes, .. } => bytes.is_none(),
            Self::Stream { stream } => stream.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Grpc { inner } => inner.size_hint(),
            Self::Whole { bytes, .. } => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Stream { .. } => SizeHint::default(),
        }
    }
}

/// What the answer to one call has to be.
pub struct AnswerShape<'a> {
    pub schema: &'a Arc<Schema>,
    pub format: &'static Format,
    /// `None` where nothing is served under the path.
    pub method: Option<&'a MethodSchema>,
    pub takes_gzip: bool,
    pub is_get: bool,
}

impl AnswerShape<'_> {
    /// Translates an answer of the layers.
    pub async fn answer<R>(self, response: Response<R>) -> Response<EdgeAnswer<R>>
    where
        R: Body<Data = Bytes>,
    {
        match self.format.wire {
            Wire::ConnectUnary => self.whole(response).await,
            // A client that is refused by its HTTP status reads no frames.
            Wire::ConnectStream if self.method.is_none() => self.whole(response).await,
            Wire::ConnectStream | Wire::Web | Wire::WebText | Wire::Grpc => self.stream(response),
        }
    }

    /// The descriptor of the messages of the answer, where they are JSON.
    fn json(&self) -> Option<prost_reflect::MessageDescriptor> {
        let method = self.method.filter(|_| self.format.codec == Codec::Json)?;
        Some(method.output.clone())
    }

    fn stream<R: Body<Data = Bytes>>(self, response: Response<R>) -> Response<EdgeAnswer<R>> {
        let (mut parts, body) = response.into_parts();
        let content_type = HeaderValue::from_static(self.format.content_type);
        let is_connect = self.format.wire == Wire::ConnectStream;
        let is_all_in_head = codes::in_headers(&parts.headers).is_some();
        if is_connect && is_all_in_head {
            let end = connect_error::end_of_stream(self.schema, &parts.headers);
            let mut response = Response::new(EdgeAnswer::whole(frames::framed(END_OF_STREAM, &end)));
            response.headers_mut().insert(CONTENT_TYPE, content_type);
            return response;
        }
        let packs = is_connect && self.takes_gzip;
        if is_connect {
            parts.headers = metadata(&parts.headers, "");
            if packs {
                parts.headers.insert(&CONNECT_CONTENT_ENCODING, GZIP);
            }
        }
        parts.headers.insert(CONTENT_TYPE, content_type);
        if is_all_in_head {
            return Response::from_parts(parts, EdgeAnswer::Grpc { inner: body });
        }
        let schema = Arc::clone(self.schema);
        let stream = AnswerStream::new(body, schema, self.format.wire, self.json(), packs);
        Response::from_parts(parts, EdgeAnswer::Stream { stream: Box::pin(stream) })
    }

    /// The answer of Connect to a unary call.
    async fn whole<R: Body<Data = Bytes>>(self, response: Response<R>) -> Response<EdgeAnswer<R>> {
        let (head, body) = response.into_parts();
        if let Some(status) =
            Status::from_header_map(&head.headers).filter(|status| status.code() != Code::Ok)
        {
            let mut headers = metadata(&head.headers, "");
            if head.headers.contains_key(&GRPC_ACCEPT_ENCODING) {
                headers.insert(ACCEPT_ENCODING, GZIP);
            }
            return self.error(&status, headers);
        }
        let mut body = Box::pin(body);
        let Some((message, trailers)) = collect(body.as_mut()).await else {
            return self.error(&status::internal(), HeaderMap::new());
        };
        let mut headers = metadata(&head.headers, "");
        headers.extend(metadata(&trailers, "trailer-"));
        match Status::from_header_map(&trailers) {
            Some(status) if status.code() == Code::Ok => {}
            Some(status) => return self.error(&status, headers),
            None => return self.error(&status::internal(), headers),
        }
        let message = match self.json() {
            None => Some(message),
            Some(descriptor) => json::of_proto(&descriptor, message).map(Bytes::from),
        };
        let Some(message) = message else { return self.error(&status::internal(), headers) };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.format.content_type));
        let packed =
            if self.takes_gzip && message.len() >= MIN_PACKED_BYTES { gzip::pack(&message) } else { None };
        if packed.is_some() {
            headers.insert(CONTENT_ENCODING, GZIP);
        }
        let bytes = packed.unwrap_or(message);
        self.head(StatusCode::OK, headers).map(|()| match EdgeAnswer::whole(bytes) {
            EdgeAnswer::Whole { bytes: Some(bytes), .. } => {
                EdgeAnswer::Whole { bytes: Some(bytes), held: Some(body) }
            }
            empty => empty,
        })
    }

    fn error<R>(&self, status: &Status, mut headers: HeaderMap) -> Response<EdgeAnswer<R>> {
        // A client without Connect understands only this.
        let http = match &self.method {
            Some(_) => connect_error::http_status(status.code()),
            None => StatusCode::NOT_FOUND,
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let error = WireError::of(self.schema, status).to_json();
        self.head(http, headers).map(|()| EdgeAnswer::whole(error))
    }

    fn head(&self, status: StatusCode, mut headers: HeaderMap) -> Response<()> {
        if self.is_get {
            // A record is the caller's, and may change at any time.
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
            // A browser shows the answer to a link that is followed.
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        }
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

/// The metadata in these headers, each name with this prefix.
fn metadata(headers: &HeaderMap, prefix: &str) -> HeaderMap {
    let mut metadata = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers.iter().filter(|(name, _)| is_metadata(name)) {
        // A name stays one with the prefix.
        if let Ok(name) = HeaderName::try_from(format!("{prefix}{name}")) {
            metadata.append(name, value.clone());
        }
    }
    metadata
}

/// The message and the trailers of a unary answer. The message is empty where there is
/// none, and the trailers then say why.
async fn collect<R: Body<Data = Bytes>>(mut body: Pin<&mut R>) -> Option<(Bytes, HeaderMap)> {
    let (mut frames, mut trailers) = (FrameReader::default(), HeaderMap::new());
    while let Some(frame) = body.frame().await {
        match frame.ok()?.into_data() {
            Ok(bytes) => frames.push(&bytes),
            Err(frame) => trailers = frame.into_trailers().ok()?,
        }
    }
    match frames.next(usize::MAX) {
        Ok(None) if frames.is_empty() => Some((Bytes::new(), trailers)),
        // No layer and no service packs an answer that its caller did not ask to be packed.
        Ok(Some(MessageFrame { flag: 0, message })) => Some((message, trailers)),
        _ => None,
    }
}
