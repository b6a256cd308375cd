//! Errors as Connect writes them: JSON, with the HTTP status of their code.

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use http::{HeaderMap, HeaderName, StatusCode, header};
use serde_json::{Map, Value};
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

/// The error: its code, its message and the details that gRPC has in a trailer.
pub fn error(schema: &Schema, status: &Status) -> Value {
    let mut error = Map::new();
    error.insert("code".into(), spelt(status.code()).0.into());
    if !status.message().is_empty() {
        error.insert("message".into(), status.message().into());
    }
    let details = status::to_proto(status).details;
    if !details.is_empty() {
        let details = details.into_iter().map(|detail| {
            let name = detail.type_url.rsplit('/').next().unwrap_or_default();
            let mut written = Map::new();
            written.insert("type".into(), name.into());
            written.insert("value".into(), STANDARD_NO_PAD.encode(&detail.value).into());
            // For people; programs read the value.
            let debug = schema.message(name).and_then(|message| json::value_of_proto(message, &detail.value));
            if let Some(debug) = debug {
                written.insert("debug".into(), debug);
            }
            Value::Object(written)
        });
        error.insert("details".into(), details.collect());
    }
    Value::Object(error)
}

/// The last message of a stream: the error, if any, and what is in the trailers.
pub fn end_of_stream(schema: &Schema, trailers: &HeaderMap) -> Vec<u8> {
    let mut end = Map::new();
    match Status::from_header_map(trailers) {
        Some(status) if status.code() == Code::Ok => {}
        Some(status) => {
            end.insert("error".into(), error(schema, &status));
        }
        // An answer without a status is not one.
        None => {
            end.insert("error".into(), error(schema, &status::internal()));
        }
    }
    let mut metadata = Map::new();
    for name in trailers.keys().filter(|name| is_metadata(name)) {
        let values = trailers.get_all(name).iter();
        let values = values.map(|value| Value::from(String::from_utf8_lossy(value.as_bytes()))).collect();
        metadata.insert(name.as_str().into(), values);
    }
    if !metadata.is_empty() {
        end.insert("metadata".into(), Value::Object(metadata));
    }
    Value::Object(end).to_string().into_bytes()
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
