//! Errors as Connect writes them: JSON, with the HTTP status of their code.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use http::{HeaderMap, HeaderName, StatusCode, header};
use serde::Serialize;
use serde_json::Value;
use tonic::{Code, Status};

use super::{json, schema::Schema};
use crate::rpc::{headers, status};

/// The code's name in Connect, and the HTTP status that it has there.
fn spelt(code: Code) -> (&'static str, u16) {
    match code {
        Code::Cancelled => ("canceled", 499),
        // No error is OK; where one says so, its code is not known.
        Code::Ok | Code::Unknown => ("unknown", 500),
        Code::InvalidArgument => ("invalid_argument", 400),
        Code::DeadlineExceeded => ("deadline_exceeded", 504),
        Code::NotFound => ("not_found", 404),
        Code::AlreadyExists => ("already_exists", 409),
        Code::PermissionDenied => ("permission_denied", 403),
        Code::ResourceExhausted => ("resource_exhausted", 429),
        Code::FailedPrecondition => ("failed_precondition", 400),
        Code::Aborted => ("aborted", 409),
        Code::OutOfRange => ("out_of_range", 400),
        Code::Unimplemented => ("unimplemented", 501),
        Code::Internal => ("internal", 500),
        Code::Unavailable => ("unavailable", 503),
        Code::DataLoss => ("data_loss", 500),
        Code::Unauthenticated => ("unauthenticated", 401),
    }
}

/// The HTTP status of an error with this code.
pub fn http_status(code: Code) -> StatusCode {
    StatusCode::from_u16(spelt(code).1).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// An error, with the details that gRPC has in a trailer.
#[derive(Debug, Serialize)]
pub struct WireError {
    code: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<Detail>,
}

#[derive(Debug, Serialize)]
struct Detail {
    /// The full name of its message.
    r#type: String,
    value: String,
    /// For people; programs read the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    debug: Option<Value>,
}

impl WireError {
    pub fn of(schema: &Schema, status: &Status) -> Self {
        let detail = |detail: prost_types::Any| {
            let name = detail.type_url.rsplit('/').next().unwrap_or_default();
            let debug = schema.message(name).and_then(|message| json::value_of_proto(message, &detail.value));
            Detail { value: STANDARD_NO_PAD.encode(&detail.value), debug, r#type: name.into() }
        };
        let details = status::to_proto(status).details.into_iter().map(detail).collect();
        Self { code: spelt(status.code()).0, message: status.message().into(), details }
    }

    pub fn to_json(&self) -> Vec<u8> {
        // It cannot fail: every key is a text.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

#[derive(Debug, Serialize)]
struct EndOfStream {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<WireError>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, Vec<String>>,
}

/// The last message of a stream: the error, if any, and the metadata of the trailers.
pub fn end_of_stream(schema: &Schema, trailers: &HeaderMap) -> Vec<u8> {
    // An answer without a status is not one.
    let status = Status::from_header_map(trailers).unwrap_or_else(status::internal);
    let error = (status.code() != Code::Ok).then(|| WireError::of(schema, &status));
    let metadata = trailers.keys().filter(|name| is_metadata(name)).map(|name| {
        let values = trailers.get_all(name).iter();
        let values = values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        (name.as_str().to_owned(), values.collect())
    });
    serde_json::to_vec(&EndOfStream { error, metadata: metadata.collect() }).unwrap_or_default()
}

/// Whether a header is metadata of the call, and not a part of the protocol.
pub fn is_metadata(name: &HeaderName) -> bool {
    const PROTOCOL: [HeaderName; 4] =
        [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::TRANSFER_ENCODING];
    let of_grpc =
        [&headers::GRPC_STATUS, &headers::GRPC_ENCODING, &super::request_head::GRPC_ACCEPT_ENCODING];
    !PROTOCOL.contains(name)
        && !of_grpc.contains(&name)
        && !["grpc-message", "grpc-status-details-bin"].contains(&name.as_str())
}
