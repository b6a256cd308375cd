//! A call of a method that streams, by tonic's machinery.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::Stream;
use http::{Request, Response};
use http_body::Body;
use prost::Message;
use tonic::{Status, Streaming, body, codec::CompressionEncoding, server::Grpc};
use tonic_prost::ProstCodec;
use tower::service_fn;

use super::{
    call::{Call, Inbound},
    reply::Reply,
    status,
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Answers one message with many. `limit` bounds the message as sent and as unpacked.
pub async fn answer_one<B, Req, Res, S, F>(
    request: Request<Inbound<B>>,
    limit: usize,
    serve: impl FnOnce(Call, Req) -> F + Send,
) -> Response<Reply>
where
    B: Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static,
    Req: Message + Default + 'static,
    Res: Message + 'static,
    S: Stream<Item = Result<Res, Status>> + Send + 'static,
    F: Future<Output = Result<S, Status>>,
{
    let (mut serve, request) = once(request, serve);
    let serve = service_fn(|request: tonic::Request<Req>| {
        let answers = serve(request.into_inner());
        async { answers.await.map(tonic::Response::new) }
    });
    completed(grpc(limit).server_streaming(serve, request).await, limit)
}

/// Answers many messages with many.
pub async fn answer_many<B, Req, Res, S>(
    request: Request<Inbound<B>>,
    limit: usize,
    serve: impl FnOnce(Call, Streaming<Req>) -> Result<S, Status> + Send,
) -> Response<Reply>
where
    B: Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static,
    Req: Message + Default + 'static,
    Res: Message + 'static,
    S: Stream<Item = Result<Res, Status>> + Send + 'static,
{
    let (mut serve, request) = once(request, serve);
    let serve = service_fn(|request: tonic::Request<Streaming<Req>>| {
        std::future::ready(serve(request.into_inner()).map(tonic::Response::new))
    });
    completed(grpc(limit).streaming(serve, request).await, limit)
}

/// Has one of tonic's own servers answer.
pub async fn answer_by(
    served: impl Future<Output = Result<Response<body::Body>, Infallible>>,
    limit: usize,
) -> Response<Reply> {
    let Ok(response) = served.await;
    completed(response, limit)
}

/// tonic takes a service that it could call again, which it does not.
fn once<B, A, R>(
    request: Request<Inbound<B>>,
    serve: impl FnOnce(Call, A) -> R,
) -> (impl FnMut(A) -> R, Request<B>) {
    let (parts, Inbound { call, body }) = request.into_parts();
    let mut once = Some((serve, call));
    let serve = move |asked| {
        let (serve, call) = once.take().expect("a call is served once");
        serve(call, asked)
    };
    (serve, Request::from_parts(parts, body))
}

fn grpc<Req, Res>(limit: usize) -> Grpc<ProstCodec<Res, Req>>
where
    Req: Message + Default + 'static,
    Res: Message + 'static,
{
    Grpc::new(ProstCodec::default())
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(limit)
}

/// An error of tonic's own is all in the head, and lacks what ours have.
fn completed(mut response: Response<body::Body>, limit: usize) -> Response<Reply> {
    status::complete(response.headers_mut(), limit);
    response.map(Reply::from)
}
