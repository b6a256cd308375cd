//! The messages in a gRPC body, each behind its prefix.

use bytes::Bytes;
use tonic::Status;

use super::status;
use crate::util::gzip::{self, UnpackError};

/// Before each message: whether it is compressed, and its length in four bytes.
pub const PREFIX_BYTES: usize = 5;

/// The length that the prefix at the start of these bytes says.
///
/// # Panics
/// If they are fewer than [`PREFIX_BYTES`].
pub fn declared(bytes: &[u8]) -> usize {
    bytes[1..PREFIX_BYTES].iter().fold(0, |length, byte| (length << 8) | usize::from(*byte))
}

/// Unpacks a message that was compressed with gzip.
///
/// # Errors
/// It is longer than `limit` once it is unpacked, or is not gzip.
pub fn unpack(message: &[u8], limit: usize) -> Result<Bytes, Status> {
    gzip::unpack(message, limit).map_err(|error| match error {
        UnpackError::TooLarge => status::message_too_large(limit),
        UnpackError::Malformed => status::malformed("the message is not gzip"),
    })
}

/// Reads the length before each message and keeps nothing else.
#[derive(Debug, Default)]
pub struct MessageScanner {
    prefix_read: u8,
    /// Of the message that is read, once its prefix is.
    len: u32,
    /// While the prefix is read: its number so far. Then: the bytes left to come.
    left: u32,
}

/// A message says that it is longer than it may be.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLarge;

impl MessageScanner {
    /// Tells the length of each message that ends in `bytes`, which follow the bytes
    /// given before.
    ///
    /// # Errors
    /// Of a message that is longer than `limit` as soon as its length is known.
    pub fn read(
        &mut self,
        mut bytes: &[u8],
        limit: usize,
        mut ended: impl FnMut(u32),
    ) -> Result<(), TooLarge> {
        while let Some((&first, rest)) = bytes.split_first() {
            if usize::from(self.prefix_read) < PREFIX_BYTES {
                bytes = rest;
                // The flag is shifted out by the four bytes that follow it.
                self.left = (self.left << 8) | u32::from(first);
                self.prefix_read += 1;
                if usize::from(self.prefix_read) < PREFIX_BYTES {
                    continue;
                }
                if self.len_left() > limit {
                    return Err(TooLarge);
                }
                self.len = self.left;
            }
            let taken = self.len_left().min(bytes.len());
            bytes = &bytes[taken..];
            self.left -= u32::try_from(taken).unwrap_or(self.left);
            if self.left == 0 {
                self.prefix_read = 0;
                ended(self.len);
            }
        }
        Ok(())
    }

    fn len_left(&self) -> usize {
        usize::try_from(self.left).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(len: u8) -> Vec<u8> {
        let mut message = vec![1, 0, 0, 0, len];
        message.resize(5 + usize::from(len), 0xff);
        message
    }

    #[test]
    fn messages_are_counted_however_the_bytes_are_cut() {
        let body = [message(0), message(3), message(200), message(1), message(0)].concat();
        for size in 1..body.len() {
            let (mut messages, mut ended) = (MessageScanner::default(), Vec::new());
            for chunk in body.chunks(size) {
                messages.read(chunk, 200, |len| ended.push(len)).unwrap();
            }
            assert_eq!(ended, [0, 3, 200, 1, 0], "in chunks of {size}");
        }
    }

    #[test]
    fn a_message_that_has_not_ended_does_not_count() {
        let body = message(9);
        assert_eq!(MessageScanner::default().read(&body[..13], 9, |_| panic!("it has ended")), Ok(()));
    }

    #[test]
    fn a_large_message_is_known_by_its_prefix_alone() {
        let mut messages = MessageScanner::default();
        assert_eq!(messages.read(&[0, 0, 1, 0], 65_535, |_| ()), Ok(()));
        assert_eq!(messages.read(&[0], 65_535, |_| ()), Err(TooLarge));
        let mut messages = MessageScanner::default();
        assert_eq!(messages.read(&[1, 0xff, 0xff, 0xff, 0xff], 65_535, |_| ()), Err(TooLarge));
    }
}
