//! The names of headers that every call is asked for: parsed here once, as to
//! parse one costs more than to look it up.

use http::HeaderName;

pub static GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
pub static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
pub static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
