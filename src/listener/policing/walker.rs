//! Finds the frames in the bytes of an HTTP/2 connection, however the reads cut them.

use std::ops::Range;

const HEADER_BYTES: usize = 9;

const END_HEADERS: u8 = 4;

/// What a frame is, by its type (RFC 9113, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    Data,
    Headers,
    Priority,
    RstStream,
    Settings,
    PushPromise,
    Ping,
    Goaway,
    WindowUpdate,
    Continuation,
    /// Of a type that RFC 9113 has peers ignore.
    Unknown,
}

impl FrameKind {
    pub const ALL: [Self; 11] = [
        Self::Data,
        Self::Headers,
        Self::Priority,
        Self::RstStream,
        Self::Settings,
        Self::PushPromise,
        Self::Ping,
        Self::Goaway,
        Self::WindowUpdate,
        Self::Continuation,
        Self::Unknown,
    ];

    fn of(byte: u8) -> Self {
        Self::ALL.get(usize::from(byte)).copied().unwrap_or(Self::Unknown)
    }
}

/// The header of a frame (RFC 9113, section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    pub kind: FrameKind,
    pub flags: u8,
    pub stream: u32,
    /// Bytes of the payload that follows.
    pub len: usize,
}

impl FrameHeader {
    fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = *bytes;
        Self {
            kind: FrameKind::of(kind),
            flags,
            // The first bit is reserved.
            stream: u32::from_be_bytes(stream) & (u32::MAX >> 1),
            len: usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c),
        }
    }
}

/// Where a connection is within its frames.
#[derive(Debug, Default)]
pub struct FrameWalker {
    /// The part of the next header that has come.
    header: [u8; HEADER_BYTES],
    /// How long that part is.
    received: usize,
    /// Bytes of the present frame's payload that are to come.
    payload: usize,
    /// What the present frame is, once the first one has begun.
    present: Option<FrameKind>,
    /// A block of header fields has begun and not ended.
    in_block: bool,
    has_ended_a_frame: bool,
}

impl FrameWalker {
    /// Shows `visit` the header of each frame that begins in these bytes, until it fails.
    /// Returns whether the connection was [at rest](Self::is_at_rest) at any time.
    pub fn walk<E>(
        &mut self,
        bytes: &[u8],
        mut visit: impl FnMut(FrameHeader) -> Result<(), E>,
    ) -> Result<bool, E> {
        let mut at = 0;
        let mut rested = false;
        loop {
            let skipped = self.payload.min(bytes.len() - at);
            self.payload -= skipped;
            at += skipped;
            rested |= self.is_at_rest();
            self.has_ended_a_frame |= self.present.is_some() && self.payload == 0;
            if at == bytes.len() {
                return Ok(rested);
            }
            let Some(header) = self.header(bytes, &mut at) else { return Ok(rested) };
            self.payload = header.len;
            self.present = Some(header.kind);
            if matches!(header.kind, FrameKind::Headers | FrameKind::Continuation) {
                self.in_block = header.flags & END_HEADERS == 0;
            }
            visit(header)?;
        }
    }

    /// Whether the peer owes nothing: no part of a frame, and no end of a header block.
    /// The rest of a DATA frame is the call's to wait for.
    pub fn is_at_rest(&self) -> bool {
        self.received == 0 && (self.payload == 0 || self.present == Some(FrameKind::Data)) && !self.in_block
    }

    /// Whether any frame has come whole.
    pub fn has_ended_a_frame(&self) -> bool {
        self.has_ended_a_frame
    }

    /// The next header, once it is whole.
    fn header(&mut self, bytes: &[u8], at: &mut usize) -> Option<FrameHeader> {
        let missing = HEADER_BYTES - self.received;
        let taken: Range<usize> = *at..bytes.len().min(*at + missing);
        *at = taken.end;
        let part = &bytes[taken];
        if let Ok(whole) = part.try_into() {
            return Some(FrameHeader::parse(whole));
        }
        self.header[self.received..self.received + part.len()].copy_from_slice(part);
        self.received += part.len();
        if self.received < HEADER_BYTES {
            return None;
        }
        self.received = 0;
        Some(FrameHeader::parse(&self.header))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, len: usize) -> Vec<u8> {
        let mut bytes = u32::try_from(len).unwrap().to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.resize(bytes.len() + len, 0xff);
        bytes
    }

    fn seen(walker: &mut FrameWalker, bytes: &[u8]) -> (Vec<FrameHeader>, bool) {
        let mut headers = Vec::new();
        let Ok(rested) = walker.walk(bytes, |header| {
            headers.push(header);
            Ok::<_, Infallible>(())
        });
        (headers, rested)
    }

    #[test]
    fn every_frame_is_seen_once_however_the_reads_cut_it() {
        let frames =
            [(1, 5, 1, 40), (0, 0, 1, 0), (8, 0, 0, 4), (6, 0, 0, 8), (0xfa, 0, 9, 300), (0, 1, 1, 70_000)];
        let bytes: Vec<u8> = frames.iter().flat_map(|&(k, f, s, len)| frame(k, f, s, len)).collect();
        let expected: Vec<_> = frames
            .iter()
            .map(|&(kind, flags, stream, len)| FrameHeader { kind: FrameKind::of(kind), flags, stream, len })
            .collect();
        for step in (1..40).chain([400, 9_000, bytes.len()]) {
            let mut walker = FrameWalker::default();
            let headers: Vec<_> = bytes.chunks(step).flat_map(|part| seen(&mut walker, part).0).collect();
            assert_eq!(headers, expected, "in steps of {step}");
            assert!(walker.has_ended_a_frame() && walker.is_at_rest(), "in steps of {step}");
        }
    }

    #[test]
    fn the_reserved_bit_is_no_part_of_the_stream() {
        let (headers, _) = seen(&mut FrameWalker::default(), &frame(3, 0, 1 << 31 | 5, 4));
        assert_eq!(headers[0].stream, 5);
    }

    #[test]
    fn a_part_of_a_frame_or_of_a_header_block_is_owed_and_the_rest_of_data_is_not() {
        for (bytes, at_rest) in [
            (&frame(6, 0, 0, 8)[..16], false),
            (&frame(6, 0, 0, 8)[..4], false),
            (&frame(6, 0, 0, 8)[..], true),
            (&frame(1, 0, 1, 10)[..], false),
            (&[frame(1, 0, 1, 10), frame(9, 0, 1, 1)].concat()[..], false),
            (&[frame(1, 0, 1, 10), frame(9, 4, 1, 1)].concat()[..], true),
            (&frame(0, 0, 1, 10)[..12], true),
        ] {
            let mut walker = FrameWalker::default();
            seen(&mut walker, bytes);
            assert_eq!(walker.is_at_rest(), at_rest, "{bytes:?}");
        }
    }

    #[test]
    fn a_rest_between_two_parts_is_noticed() {
        let mut walker = FrameWalker::default();
        let ping = frame(6, 0, 0, 8);
        assert!(seen(&mut walker, &ping[..12]).1, "it was at rest before");
        assert!(!seen(&mut walker, &ping[12..14]).1);
        let (_, rested) = seen(&mut walker, &[&ping[14..], &ping[..12]].concat());
        assert!(rested, "one has ended, and another begun");
    }
}
