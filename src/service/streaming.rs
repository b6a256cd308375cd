//! A call of a method that streams, by tonic's machinery.

use std::{error::Error, marker::PhantomData};

use bytes::Bytes;
use futures_util::Stream;
use http::{Request, Response};
use prost::Message;
use tonic::{
    Status, Streaming,
    body::Body,
    codec::{BufferSettings, Codec, CompressionEncoding},
    server::Grpc,
};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};
use tower::service_fn;

use super::response_body::ResponseBody;
use crate::rpc::status;

/// What a stream allocates in each direction before there is a message, in bytes. It stays for as
/// long as the stream is open, and grows for a larger message. tonic's default is 8 KiB.
const BUFFER_BYTES: usize = 512;

/// How many bytes of messages that are there are sent as one; tonic's default.
const BATCH_BYTES: usize = 32 * 1_024;

/// Protobuf, with buffers that many open streams can afford.
#[derive(Debug)]
pub struct LeanCodec<Req, Res>(PhantomData<(Req, Res)>);

impl<Req, Res> Codec for LeanCodec<Req, Res>
where
    Req: Message + Default + 'static,
    Res: Message + 'static,
{
    type Encode = Res;
    type Decode = Req;
    type Encoder = ProstEncoder<Res>;
    type Decoder = ProstDecoder<Req>;

    fn encoder(&mut self) -> ProstEncoder<Res> {
        ProstCodec::<Res, Req>::raw_encoder(BufferSettings::new(BUFFER_BYTES, BATCH_BYTES))
    }

    fn decoder(&mut self) -> ProstDecoder<Req> {
        ProstCodec::<Res, Req>::raw_decoder(BufferSettings::new(BUFFER_BYTES, BATCH_BYTES))
    }
}

/// tonic's machinery for one method. `limit` bounds a message as sent and as unpacked.
pub fn grpc<Req, Res>(limit: usize) -> Grpc<LeanCodec<Req, Res>>
where
    Req: Message + Default + 'static,
    Res: Message + 'static,
{
    Grpc::new(LeanCodec(PhantomData))
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(limit)
}

/// The answer as it came from tonic. An error made by tonic is all in the head, and
/// lacks the details of ours.
pub fn with_error_details(mut response: Response<Body>, limit: usize) -> Response<ResponseBody> {
    status::add_error_details(response.headers_mut(), limit);
    response.map(ResponseBody::from)
}

/// Answers a call with one request and many answers.
///
/// tonic's machinery for such a call reads one message and nothing behind it. Here a call
/// without a message, or with a second one, is UNIMPLEMENTED, as the gRPC specification asks for.
///
/// # Panics
/// If tonic calls a service twice for one request.
pub async fn server_streaming<Req, Res, B, A, F>(
    request: Request<B>,
    limit: usize,
    serve: impl FnOnce(Req) -> F + Send,
) -> Response<ResponseBody>
where
    Req: Message + Default + 'static,
    Res: Message + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>> + Send> + Send + 'static,
    A: Stream<Item = Result<Res, Status>> + Send + 'static,
    F: Future<Output = Result<tonic::Response<A>, Status>>,
{
    let mut serve = Some(serve);
    let serve = service_fn(move |messages: tonic::Request<Streaming<Req>>| {
        let serve = serve.take().expect("a call is served once");
        async move {
            let mut messages = messages.into_inner();
            let message = messages.message().await?.ok_or_else(status::missing_message)?;
            if messages.message().await?.is_some() {
                return Err(status::several_messages());
            }
            serve(message).await
        }
    });
    with_error_details(grpc(limit).streaming(serve, request).await, limit)
}
