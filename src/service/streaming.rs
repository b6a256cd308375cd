//! A call of a method that streams, by tonic's machinery.

use std::convert::Infallible;

use http::Response;
use prost::Message;
use tonic::{body::Body, codec::CompressionEncoding, server::Grpc};
use tonic_prost::ProstCodec;

use super::response_body::ResponseBody;
use crate::rpc::status;

/// tonic's machinery for one method. `limit` bounds a message as sent and as unpacked.
pub fn grpc<Req, Res>(limit: usize) -> Grpc<ProstCodec<Res, Req>>
where
    Req: Message + Default + 'static,
    Res: Message + 'static,
{
    Grpc::new(ProstCodec::default())
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(limit)
}

/// The answer as it came from tonic. An error made by tonic is all in the head, and
/// lacks the details of ours.
pub fn with_error_details(mut response: Response<Body>, limit: usize) -> Response<ResponseBody> {
    status::add_error_details(response.headers_mut(), limit);
    response.map(ResponseBody::from)
}

/// Has one of tonic's own servers answer.
pub async fn answer_by(
    served: impl Future<Output = Result<Response<Body>, Infallible>>,
    limit: usize,
) -> Response<ResponseBody> {
    let Ok(response) = served.await;
    with_error_details(response, limit)
}
