//! A request's head, as the layers read it: gRPC.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE},
    uri::PathAndQuery,
};
use tonic::Status;

use super::{
    format::{self, Codec, Format, Wire},
    frames,
    request_body::{MessageReader, Translation},
    schema::MethodSchema,
};
use crate::rpc::{
    headers::{GRPC_ENCODING, GRPC_TIMEOUT},
    protocol::GRPC,
    status,
};

pub static ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
static CONNECT_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("connect-accept-encoding");
pub static CONNECT_CONTENT_ENCODING: HeaderName = HeaderName::from_static("connect-content-encoding");
pub static CONNECT_PROTOCOL_VERSION: HeaderName = HeaderName::from_static("connect-protocol-version");
pub static CONNECT_TIMEOUT_MS: HeaderName = HeaderName::from_static("connect-timeout-ms");
pub static GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

pub const GZIP: HeaderValue = HeaderValue::from_static("gzip");

/// Makes a gRPC head of it, in place, and says how its body is read and whether the caller
/// takes gzip.
pub fn translate(
    headers: &mut HeaderMap,
    format: &Format,
    method: &MethodSchema,
    body_bytes: Option<u64>,
    limit: usize,
) -> (Translation, bool) {
    let json = (format.codec == Codec::Json).then(|| method.input.clone());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(GRPC[0]));
    headers.remove(CONTENT_LENGTH);
    let (encoding, accepted) = match format.wire {
        Wire::Grpc | Wire::Web | Wire::WebText => {
            // Protobuf is unpacked by the layers below.
            let encoding = json.as_ref().and_then(|_| headers.remove(&GRPC_ENCODING));
            headers.remove(&GRPC_ACCEPT_ENCODING);
            (encoding, None)
        }
        Wire::ConnectUnary => (headers.remove(CONTENT_ENCODING), headers.remove(ACCEPT_ENCODING)),
        Wire::ConnectStream => {
            headers.remove(ACCEPT_ENCODING);
            (headers.remove(&CONNECT_CONTENT_ENCODING), headers.remove(&CONNECT_ACCEPT_ENCODING))
        }
    };
    let is_connect = matches!(format.wire, Wire::ConnectUnary | Wire::ConnectStream);
    let head = if is_connect { connect(headers) } else { Ok(()) };
    let gzip = head.and_then(|()| is_gzip(encoding.as_ref()));
    let takes_gzip = is_connect && takes_gzip(accepted.as_ref(), gzip.as_ref().is_ok_and(|gzip| *gzip));
    let gzip = match gzip {
        Ok(gzip) => gzip,
        Err(status) => return (Translation::Refused(Box::new(status)), takes_gzip),
    };
    if gzip && json.is_none() {
        headers.insert(&GRPC_ENCODING, GZIP);
    }
    let is_proto = json.is_none();
    let reader = MessageReader { json, gzip, limit };
    let translation = match (format.wire, body_bytes) {
        (Wire::ConnectUnary, Some(len)) if is_proto => {
            let flag = u8::from(gzip && len > 0);
            Translation::Prefixed(Bytes::copy_from_slice(&frames::prefix(flag, len)))
        }
        (Wire::ConnectUnary, _) => Translation::whole(reader),
        (Wire::WebText, _) => Translation::framed(reader, true, method.streams),
        _ if is_proto => Translation::Passing,
        _ => Translation::framed(reader, false, method.streams),
    };
    (translation, takes_gzip)
}

/// Reads what only Connect has, and removes what only gRPC has.
fn connect(headers: &mut HeaderMap) -> Result<(), Status> {
    headers.remove(&GRPC_TIMEOUT);
    headers.remove(&GRPC_ENCODING);
    headers.remove(&GRPC_ACCEPT_ENCODING);
    if let Some(version) = headers.remove(&CONNECT_PROTOCOL_VERSION)
        && version != "1"
    {
        return Err(status::malformed_request("connect-protocol-version", "must be 1"));
    }
    if let Some(timeout) = headers.remove(&CONNECT_TIMEOUT_MS) {
        headers.insert(&GRPC_TIMEOUT, grpc_timeout(&timeout).ok_or_else(status::bad_connect_timeout)?);
    }
    Ok(())
}

/// At most ten digits of milliseconds, as gRPC writes them with its eight digits and a unit.
fn grpc_timeout(millis: &HeaderValue) -> Option<HeaderValue> {
    const MOST_MILLIS: u64 = 99_999_999;
    let digits = millis.as_bytes();
    if digits.is_empty() || digits.len() > 10 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let millis = digits.iter().fold(0, |millis, digit| millis * 10 + u64::from(digit - b'0'));
    let timeout = if millis > MOST_MILLIS { format!("{}S", millis / 1_000) } else { format!("{millis}m") };
    HeaderValue::try_from(timeout).ok()
}

/// Whether messages are packed.
fn is_gzip(encoding: Option<&HeaderValue>) -> Result<bool, Status> {
    match encoding.map(HeaderValue::as_bytes) {
        None | Some(b"identity" | b"") => Ok(false),
        Some(b"gzip") => Ok(true),
        Some(_) => Err(status::unknown_encoding()),
    }
}

/// Whether answers may be packed. A caller that says nothing takes what it sends.
fn takes_gzip(accepted: Option<&HeaderValue>, sends_gzip: bool) -> bool {
    let Some(accepted) = accepted else { return sends_gzip };
    let accepted = accepted.to_str().unwrap_or_default();
    accepted.split(',').any(|coding| {
        let (name, quality) = coding.split_once(';').unwrap_or((coding, ""));
        let is_refused = quality.trim().strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0));
        name.trim().eq_ignore_ascii_case("gzip") && !is_refused
    })
}

/// A call by GET, found in its query.
pub struct GetCall {
    pub format: &'static Format,
    pub translation: Translation,
    pub takes_gzip: bool,
}

/// Makes a gRPC request of a GET, in place; `None` where its message is in no known codec.
pub fn translate_get<B>(request: &mut Request<B>, method: &MethodSchema, limit: usize) -> Option<GetCall> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let parameter = |name: &str| {
        form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value)
    };
    let format = format::of_get(&parameter("encoding")?)?;
    let headers = request.headers_mut();
    headers.remove(CONTENT_ENCODING);
    if let Some(compression) = parameter("compression") {
        // A text that no header can have is no encoding.
        let compression = HeaderValue::try_from(&*compression).unwrap_or(HeaderValue::from_static("?"));
        headers.insert(CONTENT_ENCODING, compression);
    }
    let (mut translation, takes_gzip) = translate(headers, format, method, None, limit);
    if let Translation::Whole { reader, .. } = translation {
        let version = parameter("connect");
        let read = if version.is_none_or(|version| version == "v1") {
            message(parameter("message").as_deref(), parameter("base64").as_deref() == Some("1"))
        } else {
            Err(status::malformed_request("connect", "must be v1"))
        };
        translation = match read {
            Ok(message) => Translation::Ready(message, reader),
            Err(status) => Translation::Refused(Box::new(status)),
        };
    }
    *request.method_mut() = Method::POST;
    let mut uri = request.uri().clone().into_parts();
    uri.path_and_query = PathAndQuery::try_from(request.uri().path()).ok();
    *request.uri_mut() = Uri::from_parts(uri).ok()?;
    Some(GetCall { format, translation, takes_gzip })
}

/// The message in a query.
fn message(text: Option<&str>, is_base64: bool) -> Result<Bytes, Status> {
    /// Padded or not.
    const BASE64: GeneralPurpose = GeneralPurpose::new(
        &alphabet::URL_SAFE,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    match text {
        None => Err(status::malformed_request("message", "must be in the query")),
        Some(text) if is_base64 => match BASE64.decode(text) {
            Ok(message) => Ok(message.into()),
            Err(_) => Err(status::malformed_request("message", "must be base64 for URLs")),
        },
        Some(text) => Ok(Bytes::copy_from_slice(text.as_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_fits_the_eight_digits_of_grpc() {
        let timeout = |millis: &str| {
            let value = grpc_timeout(&HeaderValue::from_str(millis).unwrap())?;
            Some(value.to_str().unwrap().to_owned())
        };
        assert_eq!(timeout("0").as_deref(), Some("0m"));
        assert_eq!(timeout("99999999").as_deref(), Some("99999999m"));
        assert_eq!(timeout("100000000").as_deref(), Some("100000S"));
        assert_eq!(timeout("9999999999").as_deref(), Some("9999999S"));
        for bad in ["", "-1", "1.5", "1s", "10000000000"] {
            assert_eq!(timeout(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_answer_is_packed_only_for_a_caller_that_takes_it() {
        let takes = |accepted: &str| takes_gzip(Some(&HeaderValue::from_str(accepted).unwrap()), false);
        for yes in ["gzip", "br, gzip", "deflate,GZIP;q=0.5", "gzip;q=1.0"] {
            assert!(takes(yes), "{yes}");
        }
        for no in ["", "identity", "br", "gzip;q=0", "gzip;q=0.000", "gzipped"] {
            assert!(!takes(no), "{no}");
        }
        assert!(takes_gzip(None, true) && !takes_gzip(None, false));
    }

    #[test]
    fn a_query_holds_text_or_base64() {
        for text in ["YWI", "YWI="] {
            assert_eq!(message(Some(text), true).unwrap(), "ab", "{text}");
        }
        assert_eq!(message(Some("-_8="), true).unwrap().to_vec(), [0xfb, 0xff]);
        assert_eq!(message(Some("{}"), false).unwrap(), "{}");
        assert!(message(Some("*"), true).is_err() && message(None, false).is_err());
    }
}
