//! What browsers ask before, and need to see, when a page of another origin calls (CORS).
//!
//! **Invariant:** no answer allows credentials, so a browser sends no cookie and no client
//! certificate. A page authenticates by a token, which it has to have.

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, CONTENT_TYPE,
        ORIGIN, VARY,
    },
};

use super::answer::EdgeAnswer;
use crate::config::AllowedOrigins;

/// What a page may send: what the clients of the protocols do, a token and the trace.
const ALLOWED_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, connect-protocol-version, connect-timeout-ms, content-type, grpc-timeout, traceparent, \
     tracestate, x-grpc-web, x-user-agent",
);

/// What a page may read next to what every page may.
const EXPOSED_HEADERS: &str = "connect-content-encoding, content-encoding, grpc-message, \
                               grpc-retry-pushback-ms, grpc-status, grpc-status-details-bin";

/// How long a browser may remember the answer to its question, in seconds. Chromium
/// remembers it for two hours at most.
const MAX_AGE_SECONDS: HeaderValue = HeaderValue::from_static("7200");

const ANY: HeaderValue = HeaderValue::from_static("*");

/// The pages that may call.
#[derive(Debug)]
pub struct Cors {
    /// `None`: every page.
    origins: Option<Vec<String>>,
}

impl Cors {
    /// `None` where no page of another origin may call.
    pub fn new(origins: &AllowedOrigins) -> Option<Self> {
        match origins {
            AllowedOrigins::Any => Some(Self { origins: None }),
            AllowedOrigins::Listed(origins) if origins.is_empty() => None,
            AllowedOrigins::Listed(origins) => Some(Self { origins: Some(origins.clone()) }),
        }
    }

    /// The origin of the page that a request comes from, if it names one.
    pub fn origin<B>(request: &Request<B>) -> Option<HeaderValue> {
        request.headers().get(ORIGIN).cloned()
    }

    /// What a browser asks before a page's call.
    pub fn is_preflight<B>(request: &Request<B>) -> bool {
        let headers = request.headers();
        request.method() == Method::OPTIONS
            && headers.contains_key(ORIGIN)
            && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// The answer to that. It is no call: nothing of it reaches the layers.
    pub fn preflight<R>(&self, origin: Option<&HeaderValue>) -> Response<EdgeAnswer<R>> {
        let mut response = Response::new(EdgeAnswer::whole(""));
        let headers = response.headers_mut();
        if let Some(allowed) = self.allowed(origin) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
            headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE_SECONDS);
            *response.status_mut() = StatusCode::NO_CONTENT;
        } else {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            *response.status_mut() = StatusCode::FORBIDDEN;
            *response.body_mut() = EdgeAnswer::whole("Pages of this origin may not call.\n");
        }
        self.vary(response.headers_mut());
        response
    }

    /// Lets the page read an answer. A browser keeps it from a page that is not allowed.
    pub fn expose(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        self.vary(headers);
        let Some(allowed) = self.allowed(origin) else { return };
        let trailers = headers.keys().filter(|name| name.as_str().starts_with("trailer-"));
        let exposed = trailers.fold(EXPOSED_HEADERS.to_owned(), |all, name| all + ", " + name.as_str());
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if let Ok(exposed) = HeaderValue::try_from(exposed) {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
    }

    /// An answer to one origin is not to be given to another one.
    fn vary(&self, headers: &mut HeaderMap) {
        if self.origins.is_some() {
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
    }

    fn allowed(&self, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
        let origin = origin?;
        match &self.origins {
            None => Some(ANY),
            Some(listed) => {
                listed.iter().any(|listed| listed.as_bytes() == origin.as_bytes()).then(|| origin.clone())
            }
        }
    }
}
