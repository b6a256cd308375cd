//! A unary call, from the bytes of its request to the bytes of its answer.
//!
//! The generated servers do this with tonic's machinery for streams: a decoder, an
//! encoder, two buffers of 8 KiB and several boxes a call, an eighth of what a call
//! costs. Messages, traits and statuses are tonic's here too; only the way between
//! one message and its bytes is shorter.

use std::{
    pin::{Pin, pin},
    sync::LazyLock,
};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE, request::Parts};
use http_body::Body;
use http_body_util::BodyExt as _;
use prost::Message;
use tonic::Status;

use super::response_body::ResponseBody;
use crate::rpc::{
    call::{Call, Inbound},
    framing::{self, PREFIX_BYTES, declared},
    goaway::ConnectionHandle,
    headers::GRPC_ENCODING,
    permits::{PartialBytes, Permit, turned_away},
    status,
};

/// The headers of an answer. To clone them is quicker than to insert them.
static HEAD: LazyLock<HeaderMap> =
    LazyLock::new(|| HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))]));

/// Answers one call. `limit` bounds the message as sent and as unpacked.
pub fn answer<B, Req, Res>(
    request: Request<Inbound<B>>,
    limit: usize,
    serve: impl AsyncFnOnce(Call, Req) -> Result<Res, Status>,
) -> impl Future<Output = Response<ResponseBody>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    Req: Message + Default,
    Res: Message,
{
    // Taken apart before there is a future, which is as large as what it holds.
    let (Parts { headers, .. }, Inbound { mut call, body }) = request.into_parts();
    async move {
        let mut body = pin!(body);
        let message = match read(body.as_mut(), limit, &call.connection).await {
            Ok(message) => message,
            Err(status) => return status.into_http(),
        };
        // Not before: a request that never ends must not keep others out.
        let place = match call.limiter.take() {
            None => None,
            Some(limiter) => match limiter.enter(&call.connection) {
                None => return turned_away(),
                place => place,
            },
        };
        let connection = call.connection.clone();
        let served = match decode(message, &headers, limit) {
            Ok(message) => serve(call, message).await,
            Err(status) => Err(status),
        };
        // Before the bytes are made. No write has an answer that could be refused here.
        match served.and_then(|message| connection.unread().admit(message.encoded_len()).map(|()| message)) {
            Ok(message) => encode(&message, place),
            Err(status) => status.into_http(),
        }
    }
}

/// The message of a request that has arrived.
fn decode<Req: Message + Default>(message: Bytes, headers: &HeaderMap, limit: usize) -> Result<Req, Status> {
    let message = unpack(message, headers, limit)?;
    Req::decode(message).map_err(|_| status::malformed("the message is not protobuf"))
}

/// Reads a body that holds exactly one message, prefix included.
async fn read<B>(mut body: Pin<&mut B>, limit: usize, connection: &ConnectionHandle) -> Result<Bytes, Status>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut message = Bytes::new();
    let mut partial = PartialBytes::default();
    while !body.is_end_stream() {
        let Some(frame) = body.frame().await else { break };
        // What layers refuse a body with is a status in a box.
        let frame = frame.map_err(|error| Status::from_error(error.into()))?;
        let Ok(data) = frame.into_data() else { continue };
        // As a rule there is one frame, which is not copied.
        message = if message.is_empty() { data } else { append(message, &data) };
        if message.len() > PREFIX_BYTES && message.len() - PREFIX_BYTES > declared(&message) {
            return Err(status::several_messages());
        }
        if message.len() >= PREFIX_BYTES && declared(&message) > limit {
            return Err(status::message_too_large(limit));
        }
        if !body.is_end_stream() && !partial.keep(message.len(), connection) {
            return Err(status::overloaded());
        }
    }
    match message.len().checked_sub(PREFIX_BYTES) {
        Some(len) if len == declared(&message) => Ok(message),
        _ if message.is_empty() => Err(status::missing_message()),
        _ => Err(status::malformed("the message is cut short")),
    }
}

/// Adds to a message where it lies, for a message may come in as many frames as it
/// has bytes, and to copy it for each would make one call as dear as a thousand.
fn append(message: Bytes, data: &[u8]) -> Bytes {
    let mut whole = message.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    whole.extend_from_slice(data);
    whole.freeze()
}

/// A message without its prefix and its compression.
fn unpack(mut message: Bytes, headers: &HeaderMap, limit: usize) -> Result<Bytes, Status> {
    let prefix = message.split_to(PREFIX_BYTES);
    // An encoding that is not known is refused even where the message does not use it.
    let is_gzip = match headers.get(&GRPC_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => false,
        Some(b"gzip") => true,
        Some(_) => return Err(status::unknown_encoding()),
    };
    match prefix[0] {
        0 => Ok(message),
        1 if is_gzip => framing::unpack(&message, limit),
        1 => Err(status::malformed("the message says it is compressed, and grpc-encoding does not say how")),
        _ => Err(status::malformed("the message has a flag that is neither 0 nor 1")),
    }
}

fn encode(message: &impl Message, place: Option<Permit>) -> Response<ResponseBody> {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0);
    // No answer is near 4 GiB: pages and batches are bounded.
    bytes.put_u32(u32::try_from(length).expect("an answer is bounded"));
    message.encode_raw(&mut bytes);
    let mut response = Response::new(ResponseBody::message(bytes.freeze(), place));
    response.headers_mut().clone_from(&HEAD);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_in_frames_of_one_byte_is_moved_only_to_grow() {
        let frames = 64 * 1_024;
        let mut message = Bytes::from_static(b"0");
        let mut moves = 0;
        for _ in 0..frames {
            let before = message.as_ptr();
            message = append(message, b"1");
            moves += usize::from(message.as_ptr() != before);
        }
        assert_eq!(message.len(), 1 + frames);
        assert!(moves < 64, "{moves} moves");
    }
}
