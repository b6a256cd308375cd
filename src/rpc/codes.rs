//! The status codes of gRPC by their names, and whose fault each one is.

use http::{HeaderMap, StatusCode};
use tonic::Code;

use crate::rpc::headers::GRPC_STATUS;

/// How many codes there are; codes number from zero without a gap.
pub const CODES: usize = 17;

/// Every code, in the order of their numbers: as go-grpc-prometheus and as
/// OpenTelemetry spell it.
const NAMES: [(&str, &str); CODES] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];

/// The code's place in an array of [`CODES`].
pub fn index(code: Code) -> usize {
    code as usize
}

/// The code with this place.
pub fn at(index: usize) -> Code {
    i32::try_from(index).map_or(Code::Unknown, Code::from_i32)
}

/// As go-grpc-prometheus spells it.
pub fn prometheus_name(code: Code) -> &'static str {
    NAMES[index(code)].0
}

/// As OpenTelemetry spells it.
pub fn otel_name(code: Code) -> &'static str {
    NAMES[index(code)].1
}

/// Whether OpenTelemetry holds a server's span with this code for failed.
pub fn fails_span(code: Code) -> bool {
    code == Code::Unimplemented || is_server_fault(code)
}

/// Whether the call counts against the service: it could have been answered, and
/// was not.
pub fn is_server_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown | Code::DeadlineExceeded | Code::Internal | Code::Unavailable | Code::DataLoss
    )
}

/// The status in trailers, or in the head of an answer that has no body.
pub fn in_headers(headers: &HeaderMap) -> Option<Code> {
    headers.get(&GRPC_STATUS).map(|value| Code::from_bytes(value.as_bytes()))
}

/// The status that clients make of an HTTP answer that carries none of gRPC's.
pub fn of_http(status: StatusCode) -> Code {
    match status {
        StatusCode::BAD_REQUEST => Code::Internal,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::Unimplemented,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
        _ => Code::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_is_called_by_its_own_name() {
        for code in (0..CODES).map(at) {
            let debug = format!("{code:?}").replace("Ok", "OK").replace("Cancelled", "Canceled");
            assert_eq!(prometheus_name(code), debug);
            let otel = otel_name(code).replace('_', "").to_lowercase().replace("cancelled", "canceled");
            assert_eq!(otel, debug.to_lowercase());
        }
        assert_eq!(at(CODES), Code::Unknown, "there is no code after the last");
    }
}
