//! Finds the messages in the bytes of an HTTP/1 connection, and refuses every one that two
//! parsers could take for different messages.
//!
//! A proxy and the server behind it must agree on where a request ends. Where they do not,
//! one client decides what the next one's request is (request smuggling). hyper accepts
//! what RFC 9112 lets a server repair: a bare LF, a repeated `content-length`, one next to
//! a `transfer-encoding`. Here each of these is refused, and the connection ends.
//!
//! **Invariant:** hyper is never shown the end of a head that is refused, so no service is
//! called for it.

use super::{
    budget::FrameBudget,
    refusal::Refusal,
    walker::{FrameHeader, FrameKind},
};

/// The longest line that gives the size of a chunk, with its extensions.
const MAX_CHUNK_LINE_BYTES: usize = 256;

/// Hexadecimal digits in the size of a chunk.
const MAX_CHUNK_DIGITS: usize = 15;

/// Decimal digits in a `content-length`.
const MAX_LENGTH_DIGITS: usize = 18;

/// Where a connection is within its messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// No message has begun.
    #[default]
    Between,
    /// In the fields of a head, after its first line.
    Fields,
    /// So many bytes of a body are to come.
    Body(u64),
    ChunkSize,
    ChunkData(u64),
    /// In the CR LF after a chunk.
    ChunkEnd,
    Trailers,
}

/// What a head says so far of its message's length.
#[derive(Debug, Default)]
struct Head {
    bytes: usize,
    has_empty_line: bool,
    is_1_0: bool,
    hosts: u32,
    content_length: Option<u64>,
    is_chunked: bool,
}

/// How far some bytes have led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walked {
    /// How many of them belong to the present message.
    pub taken: usize,
    /// Whether the message has ended with the last of these.
    pub ended: bool,
    /// Whether the connection was at rest at any time.
    pub rested: bool,
}

/// Follows the messages of a connection.
#[derive(Debug)]
pub struct MessageWalker {
    place: Place,
    /// The part of the present line that has come.
    line: Vec<u8>,
    head: Head,
    max_head_bytes: usize,
    has_ended_a_head: bool,
}

impl MessageWalker {
    pub fn new(max_head_bytes: usize) -> Self {
        Self {
            place: Place::Between,
            line: Vec::new(),
            head: Head::default(),
            max_head_bytes,
            has_ended_a_head: false,
        }
    }

    /// Follows these bytes to the end of the present message at most.
    pub fn walk(&mut self, bytes: &[u8], budget: &mut FrameBudget) -> Result<Walked, Refusal> {
        let mut at = 0;
        let mut rested = self.is_at_rest();
        while at < bytes.len() {
            let ended = if let Place::Body(left) | Place::ChunkData(left) = &mut self.place {
                let skipped = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at);
                *left -= skipped as u64;
                at += skipped;
                match self.place {
                    Place::Body(0) => true,
                    Place::ChunkData(0) => {
                        self.place = Place::ChunkEnd;
                        false
                    }
                    _ => false,
                }
            } else {
                self.line(bytes, &mut at, budget)?
            };
            rested |= self.is_at_rest();
            if ended {
                self.place = Place::Between;
                self.head = Head::default();
                return Ok(Walked { taken: at, ended, rested: true });
            }
        }
        Ok(Walked { taken: at, ended: false, rested })
    }

    /// Whether the next byte begins a message.
    pub fn is_between(&self) -> bool {
        self.place == Place::Between && self.line.is_empty()
    }

    /// Whether the peer owes nothing but the data of a body, which is the call's to wait
    /// for.
    pub fn is_at_rest(&self) -> bool {
        match self.place {
            Place::Body(_) | Place::ChunkData(_) => true,
            Place::Between | Place::ChunkSize => self.line.is_empty(),
            Place::Fields | Place::ChunkEnd | Place::Trailers => false,
        }
    }

    /// Whether any head has come whole.
    pub fn has_ended_a_head(&self) -> bool {
        self.has_ended_a_head
    }

    /// Takes the part of the present line that is in these bytes. Returns whether the line
    /// ends its message.
    fn line(&mut self, bytes: &[u8], at: &mut usize, budget: &mut FrameBudget) -> Result<bool, Refusal> {
        let rest = &bytes[*at..];
        let newline = rest.iter().position(|byte| *byte == b'\n');
        let part = &rest[..newline.map_or(rest.len(), |position| position + 1)];
        *at += part.len();
        // As TLS does, which sends no end of a line either.
        let is_first = self.place == Place::Between && !self.has_ended_a_head;
        if is_first && !self.line.first().or(part.first()).is_none_or(|byte| is_text(*byte)) {
            return Err(Refusal::NotHttp);
        }
        if matches!(self.place, Place::ChunkSize | Place::ChunkEnd) {
            if self.line.len() + part.len() > MAX_CHUNK_LINE_BYTES {
                return Err(Refusal::Chunk);
            }
        } else {
            self.head.bytes += part.len();
            if self.head.bytes > self.max_head_bytes {
                return Err(Refusal::HeadTooLarge);
            }
        }
        if newline.is_none() {
            self.line.extend(part);
            return Ok(false);
        }
        let begun;
        let line = if self.line.is_empty() {
            part
        } else {
            self.line.extend(part);
            // Taken, so that a connection without a request keeps no buffer.
            begun = std::mem::take(&mut self.line);
            &begun[..]
        };
        let line = line.strip_suffix(b"\r\n").ok_or(Refusal::LineEnd)?;
        if line.iter().any(|byte| matches!(byte, b'\r' | 0)) {
            return Err(Refusal::LineEnd);
        }
        match self.place {
            Place::Between => self.first_line(line).map(|()| false),
            Place::Fields if line.is_empty() => self.end_of_head(budget),
            Place::Fields => self.field(line).map(|()| false),
            Place::ChunkSize => self.chunk_size(line, budget).map(|()| false),
            Place::ChunkEnd if line.is_empty() => {
                self.place = Place::ChunkSize;
                Ok(false)
            }
            Place::Trailers if line.is_empty() => Ok(true),
            Place::Trailers => split(line).map(|_| false),
            Place::ChunkEnd | Place::Body(_) | Place::ChunkData(_) => Err(Refusal::Chunk),
        }
    }

    fn first_line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        // RFC 9112, section 2.2: some clients send an empty line after a body.
        if line.is_empty() && !self.head.has_empty_line {
            self.head.has_empty_line = true;
            return Ok(());
        }
        let mut words = line.split(|byte| *byte == b' ');
        let words = [words.next(), words.next(), words.next(), words.next()];
        let [Some(method), Some(target), Some(version), None] = words else {
            return Err(Refusal::RequestLine);
        };
        if !version.starts_with(b"HTTP/") && !self.has_ended_a_head {
            return Err(Refusal::NotHttp);
        }
        if target.is_empty() || line.contains(&b'\t') || !matches!(version, b"HTTP/1.1" | b"HTTP/1.0") {
            return Err(Refusal::RequestLine);
        }
        if method == b"CONNECT" {
            return Err(Refusal::Connect);
        }
        self.head.is_1_0 = version == b"HTTP/1.0";
        self.place = Place::Fields;
        Ok(())
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let (name, value) = split(line)?;
        let head = &mut self.head;
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = number(value, 10, MAX_LENGTH_DIGITS).ok_or(Refusal::ContentLength)?;
            if head.content_length.replace(length).is_some() {
                return Err(Refusal::ContentLength);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let is_chunked = value.eq_ignore_ascii_case(b"chunked");
            if !is_chunked || head.is_1_0 || std::mem::replace(&mut head.is_chunked, true) {
                return Err(Refusal::TransferEncoding);
            }
        } else if name.eq_ignore_ascii_case(b"host") {
            head.hosts += 1;
        }
        if head.is_chunked && head.content_length.is_some() {
            return Err(Refusal::BothLengths);
        }
        Ok(())
    }

    /// Returns whether the message ends with its head.
    fn end_of_head(&mut self, budget: &mut FrameBudget) -> Result<bool, Refusal> {
        let least_hosts = u32::from(!self.head.is_1_0);
        if !(least_hosts..=1).contains(&self.head.hosts) {
            return Err(Refusal::Host);
        }
        pay(budget, FrameKind::Headers, self.head.bytes)?;
        self.has_ended_a_head = true;
        self.place = match self.head.content_length {
            _ if self.head.is_chunked => Place::ChunkSize,
            Some(length @ 1..) => Place::Body(length),
            _ => return Ok(true),
        };
        Ok(false)
    }

    fn chunk_size(&mut self, line: &[u8], budget: &mut FrameBudget) -> Result<(), Refusal> {
        let size = line.split(|byte| *byte == b';').next().unwrap_or(line);
        let size = number(size, 16, MAX_CHUNK_DIGITS).ok_or(Refusal::Chunk)?;
        self.place = if size == 0 { Place::Trailers } else { Place::ChunkData(size) };
        if size > 0 {
            pay(budget, FrameKind::Data, usize::try_from(size).unwrap_or(usize::MAX))
        } else {
            Ok(())
        }
    }
}

/// Whether a request of HTTP, or an empty line before it, could begin with this byte.
pub fn is_text(byte: u8) -> bool {
    byte.is_ascii_graphic() || byte.is_ascii_whitespace()
}

/// The name and the value of a header field.
fn split(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or(Refusal::Field)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    // A name that begins with white space continues the field before, as RFC 9112 forbids.
    if name.is_empty() || name.iter().any(u8::is_ascii_whitespace) {
        return Err(Refusal::Field);
    }
    Ok((name, value.trim_ascii()))
}

/// A number of digits only.
fn number(digits: &[u8], radix: u32, most: usize) -> Option<u64> {
    if digits.is_empty() || digits.len() > most {
        return None;
    }
    digits.iter().try_fold(0, |number, digit| {
        let digit = char::from(*digit).to_digit(radix)?;
        Some(number * u64::from(radix) + u64::from(digit))
    })
}

/// Pays as for the frame of HTTP/2 that costs the same.
fn pay(budget: &mut FrameBudget, kind: FrameKind, len: usize) -> Result<(), Refusal> {
    budget.pay(&FrameHeader { kind, flags: 0, stream: 0, len }).map_err(|kind| match kind {
        FrameKind::Headers => Refusal::TooManyHeads,
        _ => Refusal::TooManyChunks,
    })
}

#[cfg(test)]
mod tests;
