//! The base64 of `application/grpc-web-text`, which may be padded in its midst.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Buf, Bytes, BytesMut};

/// How many characters stand for three bytes.
const GROUP: usize = 4;

/// Decodes text that arrives in any parts.
#[derive(Debug, Default)]
pub struct TextReader {
    /// Fewer characters than a group has.
    rest: BytesMut,
}

/// The text is no base64.
#[derive(Debug, PartialEq, Eq)]
pub struct NoBase64;

impl TextReader {
    /// The bytes of all groups that are whole by now.
    pub fn read(&mut self, text: &[u8]) -> Result<Bytes, NoBase64> {
        self.rest.extend_from_slice(text);
        let whole = self.rest.len() / GROUP * GROUP;
        let mut bytes = Vec::with_capacity(whole / GROUP * 3);
        let mut left = &self.rest[..whole];
        while !left.is_empty() {
            // A padded group ends what was encoded in one piece.
            let padding = left.iter().position(|byte| *byte == b'=');
            let end = padding.map_or(left.len(), |at| (at / GROUP + 1) * GROUP);
            STANDARD.decode_vec(&left[..end], &mut bytes).map_err(|_| NoBase64)?;
            left = &left[end..];
        }
        self.rest.advance(whole);
        Ok(bytes.into())
    }

    /// Whether the text may end here.
    pub fn is_whole(&self) -> bool {
        self.rest.is_empty()
    }
}

/// One piece of an answer.
pub fn encode(bytes: &[u8]) -> Bytes {
    STANDARD.encode(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padded_pieces_are_read_however_they_are_cut() {
        let pieces: [&[u8]; 4] = [b"a", b"bc", b"def", b"ghij"];
        let text = pieces.map(|piece| String::from_utf8(encode(piece).to_vec()).unwrap()).concat();
        for size in 1..text.len() {
            let (mut reader, mut bytes) = (TextReader::default(), Vec::new());
            for chunk in text.as_bytes().chunks(size) {
                bytes.extend(reader.read(chunk).unwrap());
            }
            assert_eq!((&bytes[..], reader.is_whole()), (&b"abcdefghij"[..], true), "in chunks of {size}");
        }
    }

    #[test]
    fn other_characters_and_a_cut_group_are_found() {
        assert_eq!(TextReader::default().read(b"ab*d"), Err(NoBase64));
        let mut reader = TextReader::default();
        assert_eq!(reader.read(b"YWJjZA").as_deref(), Ok(&b"abc"[..]));
        assert!(!reader.is_whole());
    }
}
