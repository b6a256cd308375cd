//! The frames that gRPC, gRPC-Web and Connect streams share: a flag, a length of four
//! bytes, and a message.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::rpc::framing::{PREFIX_BYTES, TooLarge, declared};

/// The flag of a message that is packed.
pub const PACKED: u8 = 1;

/// A frame that has arrived.
#[derive(Debug, PartialEq, Eq)]
pub struct MessageFrame {
    pub flag: u8,
    pub message: Bytes,
}

/// Finds the frames in bytes that arrive in any parts.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: BytesMut,
}

impl FrameReader {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, once it is whole.
    ///
    /// # Errors
    /// It is longer than `limit`, which is known by its length alone.
    pub fn next(&mut self, limit: usize) -> Result<Option<MessageFrame>, TooLarge> {
        let Some((prefix, rest)) = self.buffer.split_at_checked(PREFIX_BYTES) else { return Ok(None) };
        let (flag, len) = (prefix[0], declared(prefix));
        if len > limit {
            return Err(TooLarge);
        }
        if rest.len() < len {
            return Ok(None);
        }
        self.buffer.advance(PREFIX_BYTES);
        Ok(Some(MessageFrame { flag, message: self.buffer.split_to(len).freeze() }))
    }

    /// Bytes of frames that were not taken.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether no part of a frame is left.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

/// The prefix of a message. A length that has no room in it is cut to the largest one,
/// which every limit refuses.
pub fn prefix(flag: u8, len: u64) -> [u8; PREFIX_BYTES] {
    let mut prefix = [flag; PREFIX_BYTES];
    prefix[1..].copy_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
    prefix
}

/// A message with its prefix.
pub fn framed(flag: u8, message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    frame.put_slice(&prefix(flag, message.len() as u64));
    frame.put_slice(message);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let bytes = [framed(0, b""), framed(1, b"abc"), framed(2, &[7; 300])].concat();
        for size in 1..bytes.len() {
            let (mut reader, mut frames) = (FrameReader::default(), Vec::new());
            for chunk in bytes.chunks(size) {
                reader.push(chunk);
                while let Some(frame) = reader.next(300).unwrap() {
                    frames.push((frame.flag, frame.message.len()));
                }
            }
            assert_eq!(frames, [(0, 0), (1, 3), (2, 300)], "in chunks of {size}");
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn a_frame_over_the_limit_is_known_by_its_prefix() {
        let mut reader = FrameReader::default();
        reader.push(&framed(0, &[0; 9])[..PREFIX_BYTES]);
        assert_eq!(reader.next(9), Ok(None));
        assert_eq!(reader.next(8), Err(TooLarge));
    }
}
