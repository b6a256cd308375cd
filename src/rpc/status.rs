//! Every status that this service puts on the wire, but for those made of domain errors.
//!
//! Every status carries `google.rpc.ErrorInfo`. Texts are constants or made of
//! constants: no caller's value and no internal reaches the wire, but for a user
//! id that the caller itself sent.

use std::{collections::HashMap, time::Duration};

use http::HeaderMap;
use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};
use tonic_types::{ErrorDetails, StatusExt};

use super::{
    goaway::GoAwayReason,
    reasons::{self, Reason},
};

mod prepared;
mod size;

pub use prepared::PreparedAnswer;
pub use size::{HEADER_OVERHEAD_BYTES, MAX_BYTES, has_room, header_bytes, new};

/// What names this service in every `ErrorInfo`.
pub const DOMAIN: &str = "user-service";

/// The server has as many calls as it may have.
pub fn overloaded() -> Status {
    plain(&reasons::OVERLOADED, "the server is overloaded")
}

/// The server has more calls than it can answer in time, and should have room again
/// after this delay.
pub fn overloaded_for(retry_delay: Duration) -> Status {
    let reason = &reasons::OVERLOADED;
    retry_after(reason, "the server is overloaded", info(reason, []), Some(retry_delay))
}

/// The call has no identity, and its method needs one.
pub fn credentials_missing() -> Status {
    plain(&reasons::CREDENTIALS_MISSING, "the call has no credentials")
}

/// The token of a call is not valid. The status does not say why.
pub fn credentials_rejected() -> Status {
    plain(&reasons::CREDENTIALS_REJECTED, "the credentials are not valid")
}

/// The caller may not call the method, or not for this record.
pub fn not_permitted() -> Status {
    plain(&reasons::NOT_PERMITTED, "the caller may not do this")
}

/// The caller is over its share.
pub fn over_quota() -> Status {
    plain(&reasons::QUOTA, "the caller has more calls than its share")
}

/// The server is shutting down; the caller may retry on another one immediately.
pub fn draining() -> Status {
    plain(&reasons::DRAINING, "the server is shutting down")
}

/// The connection of a stream has reached its maximum age; the caller may open another
/// one immediately.
pub fn connection_aged() -> Status {
    plain(&reasons::CONNECTION_AGED, "the connection is too old: go on over another one")
}

/// Why a stream ends whose connection is to go.
pub fn goaway(reason: GoAwayReason) -> Status {
    match reason {
        GoAwayReason::Age => connection_aged(),
        GoAwayReason::Drain => draining(),
    }
}

/// An import had no request for a minute, so its permit is released.
pub fn import_idle() -> Status {
    plain(&reasons::IMPORT_IDLE, "no user was sent for a while: call again with what is left")
}

/// A watch has fallen behind the change buffer.
pub fn watcher_too_slow() -> Status {
    plain(
        &reasons::WATCHER_TOO_SLOW,
        "users change faster than this stream is read: resume it, and read faster",
    )
}

/// The same end, and where to go on behind it.
pub fn with_resume_token(status: &Status, token: String) -> Status {
    let mut details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.clone()).unwrap_or_default();
    details.set_error_info(reason, DOMAIN, HashMap::from([("resume_token".to_owned(), token)]));
    new(status.code(), status.message(), details, status.metadata().clone())
}

/// The store is not open yet.
pub fn starting() -> Status {
    plain(&reasons::STARTING, "the server is starting")
}

/// Time ran out.
pub fn deadline_exceeded() -> Status {
    plain(&reasons::DEADLINE_EXCEEDED, "the deadline passed before the call was done")
}

/// The connection has as many bytes of answers waiting as it may have.
pub fn answers_unread() -> Status {
    plain(
        &reasons::ANSWERS_UNREAD,
        "answers on this connection wait to be read: read them, or ask for smaller pages",
    )
}

/// The request of a call was not whole in time.
pub fn request_incomplete() -> Status {
    plain(&reasons::REQUEST_INCOMPLETE, "the request did not arrive in time")
}

/// A message is longer than it may be. There is nothing to retry.
pub fn message_too_large(limit_bytes: usize) -> Status {
    plain(&reasons::MESSAGE_TOO_LARGE, &format!("a message may have at most {limit_bytes} bytes"))
}

/// A message cannot be read: INTERNAL, as the gRPC specification asks for.
pub fn malformed(message: &str) -> Status {
    plain(&reasons::MALFORMED_MESSAGE, message)
}

/// JSON that is no message, read up to this place.
pub fn malformed_json(what: &str, line: usize, column: usize) -> Status {
    plain(&reasons::MALFORMED_JSON, &format!("the JSON {what}: line {line}, column {column}"))
}

/// A header or a query parameter of a protocol that cannot be read.
pub fn malformed_request(field: &str, description: &str) -> Status {
    bad_request(&reasons::MALFORMED_REQUEST, "the request cannot be read", field, description)
}

/// More than one message where there is one: UNIMPLEMENTED, as the gRPC
/// specification asks for.
pub fn several_messages() -> Status {
    plain(&reasons::SEVERAL_MESSAGES, "the method takes exactly one message")
}

/// No message where there is one: UNIMPLEMENTED for the same reason.
pub fn missing_message() -> Status {
    plain(&reasons::MISSING_MESSAGE, "the method takes exactly one message, and there is none")
}

/// A message is compressed in a way that is not known here.
pub fn unknown_encoding() -> Status {
    let message = "the message may be compressed with gzip or not at all";
    let mut status = plain(&reasons::UNKNOWN_ENCODING, message);
    status.metadata_mut().insert("grpc-accept-encoding", MetadataValue::from_static("identity,gzip"));
    status
}

/// `grpc-timeout` cannot be read.
pub fn bad_timeout() -> Status {
    bad_request(
        &reasons::INVALID_TIMEOUT,
        "grpc-timeout cannot be read",
        "grpc-timeout",
        "must be 1 to 8 digits and one of H, M, S, m, u and n",
    )
}

/// `connect-timeout-ms` cannot be read.
pub fn bad_connect_timeout() -> Status {
    bad_request(
        &reasons::INVALID_TIMEOUT,
        "connect-timeout-ms cannot be read",
        "connect-timeout-ms",
        "must be 1 to 10 digits",
    )
}

/// The content type is none that is served.
pub fn bad_content_type() -> Status {
    bad_request(
        &reasons::INVALID_CONTENT_TYPE,
        "the content type is not served here",
        "content-type",
        "must be one of those in accept-post",
    )
}

/// Something is broken, and the log says what.
pub fn internal() -> Status {
    plain(&reasons::INTERNAL, "internal error")
}

/// Nothing is served under this path.
pub fn unimplemented() -> Status {
    plain(&reasons::UNKNOWN_METHOD, "no such method")
}

/// Nothing is known under this health name.
pub fn unknown_health_name() -> Status {
    let reason = &reasons::UNKNOWN_HEALTH_NAME;
    let mut details = info(reason, []);
    details.set_resource_info("grpc.health.v1.Health", "service", "", "List names every health name");
    with_details(reason, "no such health name", details)
}

/// The trailers that say a status.
pub fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // It cannot fail: the message and the details are plain.
    let _ = status.add_header(&mut trailers);
    trailers
}

/// Gives an error that tonic itself answered the details that every error has.
///
/// `max_message_bytes` is what the limit was where a message was over it.
pub fn add_error_details(headers: &mut HeaderMap, max_message_bytes: usize) {
    let Some(bare) = without_details(headers) else { return };
    let status = match bare.code() {
        // What tonic says of a message that is too long, as sent and as unpacked.
        Code::OutOfRange | Code::ResourceExhausted => message_too_large(max_message_bytes),
        // What the specification asks for where a message cannot be read.
        Code::Internal => malformed(bare.message()),
        // The one form of a message that it does not know.
        Code::Unimplemented => unknown_encoding(),
        code => new(code, bare.message(), info(&reasons::UNEXPECTED, []), MetadataMap::new()),
    };
    // It can only fail where a text is no header value, and these are encoded.
    let _ = status.add_header(headers);
}

/// The same for a status that is at hand.
pub fn with_error_details(status: &Status, max_message_bytes: usize) -> Status {
    let mut headers = HeaderMap::new();
    let _ = status.add_header(&mut headers);
    add_error_details(&mut headers, max_message_bytes);
    Status::from_header_map(&headers).unwrap_or_else(internal)
}

/// A status to be sent within a message.
pub fn to_proto(status: &Status) -> tonic_types::Status {
    // Its details are the same status, encoded, as gRPC has it.
    prost::Message::decode(status.details()).unwrap_or_else(|_| tonic_types::Status {
        code: status.code().into(),
        message: status.message().into(),
        details: Vec::new(),
    })
}

/// The error in these headers, if there is one and it has no details.
pub fn without_details(headers: &HeaderMap) -> Option<Status> {
    let code = headers.get(Status::GRPC_STATUS)?;
    if code == "0" || headers.contains_key(Status::GRPC_STATUS_DETAILS) {
        return None;
    }
    Status::from_header_map(headers)
}

pub fn bad_request(reason: &Reason, message: &str, field: &str, description: &str) -> Status {
    let mut details = info(reason, []);
    details.add_bad_request_violation(field, description);
    with_details(reason, message, details)
}

pub fn plain(reason: &Reason, message: &str) -> Status {
    with_details(reason, message, info(reason, []))
}

pub fn with_details(reason: &Reason, message: &str, details: ErrorDetails) -> Status {
    retry_after(reason, message, details, reason.retry_after())
}

/// Says when to repeat the call as well, where there is a time for that.
fn retry_after(reason: &Reason, message: &str, mut details: ErrorDetails, delay: Option<Duration>) -> Status {
    let code = reason.code.unwrap_or(Code::Unknown);
    let mut metadata = MetadataMap::new();
    if let Some(delay) = delay {
        details.set_retry_info(Some(delay));
        let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        metadata.insert("grpc-retry-pushback-ms", millis.into());
    }
    new(code, message, details, metadata)
}

pub fn info<const N: usize>(reason: &Reason, metadata: [(&str, &str); N]) -> ErrorDetails {
    let metadata: HashMap<String, String> =
        metadata.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    ErrorDetails::with_error_info(reason.name, DOMAIN, metadata)
}
