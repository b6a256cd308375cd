//! Server reflection, v1 and v1alpha: what grpcurl and its like read.
//!
//! tonic-reflection answers; this gives it every descriptor that a caller can
//! meet (error details included, so that tools can print them), ends its streams
//! when the server drains, and completes its errors.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::{Status, body::Body, codec::CompressionEncoding};
use tonic_reflection::server::{Builder, Error};
use tower::util::BoxCloneSyncService;
use tower_service::Service;

use super::health::Health;
use crate::{proto::DESCRIPTORS, rpc::status};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Inner = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// The file that only the article's contract is in.
const ARTICLE_FILE: &str = "user.proto";

/// One version of the reflection protocol.
pub struct Reflection {
    inner: Inner,
    max_message_bytes: usize,
    health: Health,
}

impl Reflection {
    /// Both versions, v1 first. Without `article_api` the article's file is not
    /// served at all: neither its service nor its messages can be described.
    pub fn both(article_api: bool, max_message_bytes: usize, health: &Health) -> Result<(Self, Self), Error> {
        let own = if article_api { DESCRIPTORS.to_vec() } else { without_article()? };
        let v1 = builder(&own).build_v1()?;
        let v1 = v1.accept_compressed(CompressionEncoding::Gzip).max_decoding_message_size(max_message_bytes);
        let v1alpha = builder(&own).build_v1alpha()?;
        let v1alpha =
            v1alpha.accept_compressed(CompressionEncoding::Gzip).max_decoding_message_size(max_message_bytes);
        let reflection = |inner| Self { inner, max_message_bytes, health: health.clone() };
        Ok((reflection(Inner::new(v1)), reflection(Inner::new(v1alpha))))
    }

    pub fn call<B>(
        &self,
        request: Request<B>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        // The end of the requests ends the stream, after what was asked is answered.
        let until_drain = |body| Body::new(UntilDrain { body, drain: Box::pin(self.health.streams_ended()) });
        let answer = self.inner.clone().call(request.map(Body::new).map(until_drain));
        let (health, max_message_bytes) = (self.health.clone(), self.max_message_bytes);
        let completed = move |body| Body::new(WithErrorDetails { body, max_message_bytes, health });
        Box::pin(async move { Ok(answer.await?.map(completed)) })
    }
}

fn builder(own: &[u8]) -> Builder<'_> {
    Builder::configure()
        .register_encoded_file_descriptor_set(own)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
}

/// Our own protos have no custom options, so nothing is lost by decoding them.
fn without_article() -> Result<Vec<u8>, Error> {
    let mut set = FileDescriptorSet::decode(DESCRIPTORS)?;
    set.file.retain(|file| file.name() != ARTICLE_FILE);
    Ok(set.encode_to_vec())
}

/// A request body that ends when the server drains.
struct UntilDrain {
    body: Body,
    drain: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl HttpBody for UntilDrain {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.drain.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }
}

/// A response body whose trailers say why it ended.
struct WithErrorDetails {
    body: Body,
    max_message_bytes: usize,
    health: Health,
}

impl HttpBody for WithErrorDetails {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| match frame.into_trailers() {
                Ok(trailers) => Frame::trailers(self.add_error_details(trailers)),
                Err(frame) => frame,
            })
        }))
    }
}

impl WithErrorDetails {
    fn add_error_details(&self, mut trailers: HeaderMap) -> HeaderMap {
        status::add_error_details(&mut trailers, self.max_message_bytes);
        let ended_well = trailers.get(Status::GRPC_STATUS).is_some_and(|code| code == "0");
        if ended_well && self.health.have_streams_ended() {
            let _ = status::draining().add_header(&mut trailers);
        }
        trailers
    }
}

#[cfg(test)]
mod tests;
