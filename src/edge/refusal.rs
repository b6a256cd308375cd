//! Requests that are no call: each is answered with an HTTP status.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
};
use http_body::Body;
use http_body_util::BodyExt as _;

use super::{
    answer::EdgeAnswer,
    format::{FORMATS, Format},
    request_head::ACCEPT_POST,
    schema::MethodSchema,
};
use crate::rpc::{protocol::GRPC, status};

/// Why a request is no call.
#[derive(Debug)]
pub enum Refusal {
    /// Its content type is none that is served.
    ContentType,
    /// Nothing is served under the path for its HTTP method.
    HttpMethod {
        allow: &'static str,
    },
    NotFound,
    /// gRPC needs trailers, which HTTP/1.1 clients and proxies do not pass on.
    HttpVersion,
}

impl Refusal {
    /// Of a request with an HTTP method that no method under its path has.
    pub fn of_http_method(method: Option<&MethodSchema>, serves_get: bool) -> Self {
        match method {
            None => Self::NotFound,
            Some(method) if method.takes_get && serves_get => Self::HttpMethod { allow: "GET, POST" },
            Some(_) => Self::HttpMethod { allow: "POST" },
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::HttpMethod { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::HttpVersion => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        }
    }

    fn text(&self) -> &'static str {
        match self {
            Self::ContentType => {
                "This content type is not served here; the header accept-post names those that are.\n"
            }
            Self::HttpMethod { .. } => {
                "This HTTP method is not served here; the header allow names those that are.\n"
            }
            Self::NotFound => "Nothing is served under this path.\n",
            Self::HttpVersion => "gRPC needs HTTP/2. Over HTTP/1.1 use gRPC-Web or Connect.\n",
        }
    }

    /// The answer, which a browser and curl show. `served` are the formats of this server,
    /// and `method` is the one under the path.
    pub fn answer<R>(
        &self,
        method: Option<&MethodSchema>,
        served: impl Fn(&Format) -> bool,
    ) -> Response<EdgeAnswer<R>> {
        let mut response = Response::new(EdgeAnswer::whole(self.text()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        match self {
            Self::ContentType => {
                // For gRPC clients whose codec is another one.
                let _ = status::bad_content_type().add_header(headers);
                let fits = |format: &&Format| {
                    served(format) && method.is_none_or(|method| format.fits(method.streams))
                };
                let others = FORMATS.iter().filter(fits).map(|format| format.content_type);
                let accepted = GRPC.into_iter().chain(others).collect::<Vec<_>>().join(", ");
                if let Ok(accepted) = HeaderValue::try_from(accepted) {
                    headers.insert(&ACCEPT_POST, accepted);
                }
            }
            Self::HttpMethod { allow } => {
                headers.insert(ALLOW, HeaderValue::from_static(allow));
            }
            Self::NotFound | Self::HttpVersion => {}
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        response
    }
}

/// How long the rest of a request is read that is refused.
const REFUSED_BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads a request to its end. To answer earlier would cut it off, and hide from its sender
/// that it breaks HTTP/2 where it does.
pub async fn discard<B: Body<Data = Bytes>>(body: B) {
    let mut body = pin!(body);
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = tokio::time::timeout(REFUSED_BODY_TIMEOUT, rest).await;
}
