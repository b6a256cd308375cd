//! How a request and its answer are written, by the content type.

use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};

use crate::rpc::protocol::{GRPC, Protocol};

/// How one message is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    Proto,
    Json,
}

/// How messages and the status are put into a request and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// gRPC itself, with messages that are not protobuf.
    Grpc,
    /// The trailers are the last frame of the body.
    Web,
    /// The same in base64.
    WebText,
    /// The body is the message.
    ConnectUnary,
    /// The status is the last frame of the body, in JSON.
    ConnectStream,
}

/// One of the content types that are translated.
#[derive(Debug, PartialEq, Eq)]
pub struct Format {
    pub content_type: &'static str,
    pub wire: Wire,
    pub codec: Codec,
}

impl Format {
    pub fn protocol(&self) -> Protocol {
        match self.wire {
            Wire::Grpc => Protocol::Grpc,
            Wire::Web | Wire::WebText => Protocol::GrpcWeb,
            Wire::ConnectUnary | Wire::ConnectStream => Protocol::Connect,
        }
    }

    /// Whether a method that streams, or one that does not, is called with it.
    pub fn fits(&self, streams: bool) -> bool {
        match self.wire {
            Wire::Grpc | Wire::Web | Wire::WebText => true,
            Wire::ConnectUnary => !streams,
            Wire::ConnectStream => streams,
        }
    }
}

macro_rules! formats {
    ($($content_type:literal $wire:ident $codec:ident;)+) => {
        /// Every format that is translated, in the order of `accept-post`.
        pub static FORMATS: &[Format] = &[$(Format {
            content_type: $content_type,
            wire: Wire::$wire,
            codec: Codec::$codec,
        }),+];
    };
}

formats! {
    "application/grpc+json" Grpc Json;
    "application/grpc-web" Web Proto;
    "application/grpc-web+proto" Web Proto;
    "application/grpc-web+json" Web Json;
    "application/grpc-web-text" WebText Proto;
    "application/grpc-web-text+proto" WebText Proto;
    "application/proto" ConnectUnary Proto;
    "application/json" ConnectUnary Json;
    "application/connect+proto" ConnectStream Proto;
    "application/connect+json" ConnectStream Json;
}

/// The format of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// gRPC with protobuf, which the layers read as it is.
    Grpc,
    Other(&'static Format),
    Unknown,
}

/// Tells the formats apart.
#[inline]
pub fn of(headers: &HeaderMap) -> Spoken {
    match headers.get(CONTENT_TYPE) {
        // The usual value.
        Some(value) if value.as_bytes() == GRPC[0].as_bytes() => Spoken::Grpc,
        Some(value) => parse(value),
        None => Spoken::Unknown,
    }
}

#[cold]
fn parse(value: &HeaderValue) -> Spoken {
    let Ok(value) = value.to_str() else { return Spoken::Unknown };
    let (essence, parameters) = value.split_once(';').unwrap_or((value, ""));
    let essence = essence.trim();
    if GRPC.iter().any(|name| essence.eq_ignore_ascii_case(name)) {
        return Spoken::Grpc;
    }
    let is_utf_8 = |parameter: &str| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        name.trim().eq_ignore_ascii_case("charset")
            && value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
    };
    let format = FORMATS.iter().find(|format| essence.eq_ignore_ascii_case(format.content_type));
    match format {
        Some(format) if parameters.trim().is_empty() || parameters.split(';').all(is_utf_8) => {
            Spoken::Other(format)
        }
        _ => Spoken::Unknown,
    }
}

/// The format of a Connect call by GET with this codec.
pub fn of_get(encoding: &str) -> Option<&'static Format> {
    let of_codec = |format: &&Format| format.content_type.strip_prefix("application/") == Some(encoding);
    FORMATS.iter().filter(|format| format.wire == Wire::ConnectUnary).find(of_codec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken(value: &str) -> Spoken {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(value).unwrap());
        of(&headers)
    }

    #[test]
    fn every_content_type_has_one_format() {
        for format in FORMATS {
            assert_eq!(spoken(format.content_type), Spoken::Other(format));
            assert_eq!(spoken(&format.content_type.to_uppercase()), Spoken::Other(format));
        }
        for grpc in ["application/grpc", "application/grpc+proto", "Application/GRPC; charset=utf-8"] {
            assert_eq!(spoken(grpc), Spoken::Grpc, "{grpc}");
        }
        for unknown in ["", "text/html", "application/grpcx", "application/grpc+foo", "application/jsonx"] {
            assert_eq!(spoken(unknown), Spoken::Unknown, "{unknown}");
        }
        assert_eq!(of(&HeaderMap::new()), Spoken::Unknown);
    }

    #[test]
    fn json_may_say_that_it_is_utf_8_and_nothing_else() {
        let json = of_get("json").expect("there is JSON");
        for good in ["application/json; charset=utf-8", "application/json;charset=\"UTF-8\""] {
            assert_eq!(spoken(good), Spoken::Other(json), "{good}");
        }
        for bad in ["application/json; charset=utf-16", "application/json; version=2"] {
            assert_eq!(spoken(bad), Spoken::Unknown, "{bad}");
        }
        assert_eq!(of_get("connect+json"), None);
    }
}
