//! The answers to requests that are refused before any service is called.

use super::{violation::Violation, walker::FrameKind};

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The connection does not begin with a request of HTTP.
    NotHttp,
    LineEnd,
    RequestLine,
    Connect,
    Field,
    ContentLength,
    TransferEncoding,
    BothLengths,
    Host,
    HeadTooLarge,
    Chunk,
    /// The rest of a head, or of a line between chunks, did not come.
    Incomplete,
    TooManyHeads,
    TooManyChunks,
}

impl Refusal {
    pub const ALL: [Self; 14] = [
        Self::NotHttp,
        Self::LineEnd,
        Self::RequestLine,
        Self::Connect,
        Self::Field,
        Self::ContentLength,
        Self::TransferEncoding,
        Self::BothLengths,
        Self::Host,
        Self::HeadTooLarge,
        Self::Chunk,
        Self::Incomplete,
        Self::TooManyHeads,
        Self::TooManyChunks,
    ];

    /// What the connection is ended for, where its requests are whole and cost too much, or
    /// never become whole.
    pub fn violation(self) -> Option<Violation> {
        match self {
            Self::Incomplete => Some(Violation::Incomplete),
            Self::TooManyHeads => Some(Violation::Frames(FrameKind::Headers)),
            Self::TooManyChunks => Some(Violation::Frames(FrameKind::Data)),
            _ => None,
        }
    }

    /// The answer, after which the connection ends.
    pub fn answer(self) -> Vec<u8> {
        const BAD_REQUEST: &str = "400 Bad Request";
        let (status, why) = match self {
            Self::NotHttp => (BAD_REQUEST, "this is not HTTP"),
            Self::LineEnd => (BAD_REQUEST, "a line does not end with CR LF, or holds a CR or a NUL"),
            Self::RequestLine => (BAD_REQUEST, "the first line is not: method target HTTP/1.1"),
            Self::Connect => ("501 Not Implemented", "CONNECT is not served"),
            Self::Field => (BAD_REQUEST, "a header field is not: name, colon, value"),
            Self::ContentLength => (BAD_REQUEST, "content-length is not one decimal number"),
            Self::TransferEncoding => (BAD_REQUEST, "transfer-encoding is not: chunked"),
            Self::BothLengths => (BAD_REQUEST, "content-length and transfer-encoding exclude each other"),
            Self::Host => (BAD_REQUEST, "there is not exactly one host"),
            Self::HeadTooLarge => ("431 Request Header Fields Too Large", "the head is too large"),
            Self::Chunk => (BAD_REQUEST, "a chunk has no valid size, or does not end after it"),
            Self::Incomplete => ("408 Request Timeout", "the rest of the request did not come"),
            Self::TooManyHeads => ("429 Too Many Requests", "requests came too fast"),
            Self::TooManyChunks => ("429 Too Many Requests", "small chunks came too fast"),
        };
        format!(
            "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n\
             content-length: {}\r\n\r\n{why}\n",
            why.len() + 1
        )
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_an_answer_that_ends_the_connection() {
        for refusal in Refusal::ALL {
            let answer = String::from_utf8(refusal.answer()).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 ") && head.contains("\r\nconnection: close\r\n"), "{answer}");
            assert!(head.ends_with(&format!("content-length: {}", body.len())), "{answer}");
        }
    }
}
