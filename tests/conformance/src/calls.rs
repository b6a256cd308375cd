//! A call between the service's own code for bytes and messages, and a method of a suite:
//! the headers and the deadline go in, and metadata comes out next to the messages.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, metadata::MetadataMap};
use tower::service_fn;
use user_service::{
    domain::Deadline,
    edge::EdgeBody,
    layers::LimitedBody,
    listener::RequestBody,
    rpc::{call::Inbound, headers::GRPC_TIMEOUT},
    service::{
        ResponseBody,
        streaming::{self, grpc, with_error_details},
        unary::answer,
    },
};

pub type Request = http::Request<Inbound<LimitedBody<EdgeBody<RequestBody>>>>;

/// What a method can see of its call.
#[derive(Clone, Debug)]
pub struct Seen {
    pub headers: HeaderMap,
    deadline: Deadline,
}

impl Seen {
    fn of(request: &Request) -> Self {
        Self { headers: request.headers().clone(), deadline: request.body().call.deadline }
    }

    /// The time left until the deadline that the caller has set.
    pub fn timeout(&self) -> Option<Duration> {
        self.headers.get(&GRPC_TIMEOUT).and_then(|_| self.deadline.remaining())
    }
}

/// The metadata of an answer.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    pub headers: HeaderMap,
    pub trailers: HeaderMap,
}

/// What a method answers.
pub type Outcome<T> = (Metadata, Result<T, Status>);

/// The messages of a stream.
pub type Answers<T> = ReceiverStream<Result<T, Status>>;

/// Runs `produce`, which sends the messages of a stream, until the stream is dropped.
pub fn stream<T, F>(produce: impl FnOnce(mpsc::Sender<Result<T, Status>>) -> F) -> Answers<T>
where
    T: Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (send, answers) = mpsc::channel(1);
    let gone = send.clone();
    let produced = produce(send);
    tokio::spawn(async move {
        tokio::select! {
            () = produced => {}
            () = gone.closed() => {}
        }
    });
    ReceiverStream::new(answers)
}

/// Answers a unary call.
pub async fn unary<Req, Res, F>(
    request: Request,
    limit: usize,
    serve: impl FnOnce(Seen, Req) -> F,
) -> Response<AnswerBody>
where
    Req: Message + Default,
    Res: Message,
    F: Future<Output = Outcome<Res>>,
{
    let headers = request.headers().clone();
    let (metadata_sender, mut metadata) = oneshot::channel();
    let response = answer(request, limit, async move |call, message| {
        let seen = Seen { headers, deadline: call.deadline };
        let (metadata, result) = serve(seen, message).await;
        // The receiver lives as long as this future.
        let _ = metadata_sender.send(metadata);
        result
    })
    .await;
    with_metadata(response, metadata.try_recv().unwrap_or_default())
}

/// Answers a call with one request and many answers.
pub async fn server_streaming<Req, Res, F>(
    request: Request,
    limit: usize,
    serve: impl FnOnce(Seen, Req) -> F + Send,
) -> Response<AnswerBody>
where
    Req: Message + Default + 'static,
    Res: Message + 'static,
    F: Future<Output = Outcome<Answers<Res>>> + Send,
{
    let seen = Seen::of(&request);
    let request = Inbound::split(request).1;
    let response =
        streaming::server_streaming(request, limit, async |message| carrying(serve(seen, message).await))
            .await;
    completed(response)
}

/// Answers a call with many requests and one answer.
pub async fn client_streaming<Req, Res, F>(
    request: Request,
    limit: usize,
    serve: impl FnOnce(Seen, Streaming<Req>) -> F,
) -> Response<AnswerBody>
where
    Req: Message + Default + 'static,
    Res: Message + 'static,
    F: Future<Output = Outcome<Res>>,
{
    let mut serve = Some((serve, Seen::of(&request)));
    let serve = service_fn(move |messages: tonic::Request<Streaming<Req>>| {
        let (serve, seen) = serve.take().expect("a call is served once");
        let served = serve(seen, messages.into_inner());
        async move { carrying(served.await) }
    });
    let response = grpc(limit).client_streaming(serve, Inbound::split(request).1).await;
    completed(with_error_details(response, limit))
}

/// Answers a call with many requests and many answers.
pub async fn bidi_streaming<Req, Res, F>(
    request: Request,
    limit: usize,
    serve: impl FnOnce(Seen, Streaming<Req>) -> F + Send,
) -> Response<AnswerBody>
where
    Req: Message + Default + 'static,
    Res: Message + 'static,
    F: Future<Output = Outcome<Answers<Res>>>,
{
    let mut serve = Some((serve, Seen::of(&request)));
    let serve = service_fn(move |messages: tonic::Request<Streaming<Req>>| {
        let (serve, seen) = serve.take().expect("a call is served once");
        let served = serve(seen, messages.into_inner());
        async move { carrying(served.await) }
    });
    let response = grpc(limit).streaming(serve, Inbound::split(request).1).await;
    completed(with_error_details(response, limit))
}

/// An outcome for tonic, with the metadata as an extension: tonic has no trailers for a
/// call that succeeds.
fn carrying<T>((metadata, result): Outcome<T>) -> Result<tonic::Response<T>, Status> {
    match result {
        Ok(answer) => {
            let mut response = tonic::Response::new(answer);
            response.extensions_mut().insert(metadata);
            Ok(response)
        }
        // An answer of headers alone has room for both.
        Err(mut status) => {
            let mut headers = metadata.headers;
            append(&mut headers, metadata.trailers);
            *status.metadata_mut() = MetadataMap::from_headers(headers);
            Err(status)
        }
    }
}

/// Adds the metadata that [`carrying`] has attached.
fn completed(mut response: Response<ResponseBody>) -> Response<AnswerBody> {
    let metadata = response.extensions_mut().remove().unwrap_or_default();
    with_metadata(response, metadata)
}

fn with_metadata(response: Response<ResponseBody>, metadata: Metadata) -> Response<AnswerBody> {
    let Metadata { headers, trailers } = metadata;
    let mut response = response.map(|inner| AnswerBody { inner, trailers });
    append(response.headers_mut(), headers);
    if response.body().is_end_stream() {
        let trailers = std::mem::take(&mut response.body_mut().trailers);
        append(response.headers_mut(), trailers);
    }
    response
}

/// Adds each value, next to those of the same name.
fn append(headers: &mut HeaderMap, more: HeaderMap) {
    let mut last = None;
    for (name, value) in more {
        last = name.or(last);
        if let Some(name) = &last {
            headers.append(name, value);
        }
    }
}

/// The body of an answer, with more in its trailers.
#[derive(Debug, Default)]
pub struct AnswerBody {
    inner: ResponseBody,
    trailers: HeaderMap,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        frame.map_ok(|mut frame| {
            if let Some(trailers) = frame.trailers_mut() {
                append(trailers, std::mem::take(&mut self.trailers));
            }
            frame
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
