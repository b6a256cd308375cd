//! gzip in memory, bounded.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};

/// Why a text cannot be unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnpackError {
    /// It is longer than the limit once it is unpacked.
    TooLarge,
    Malformed,
}

/// Unpacks at most `limit` bytes.
pub fn unpack(packed: &[u8], limit: usize) -> Result<Bytes, UnpackError> {
    let mut unpacked = Vec::new();
    // One more than there may be, to tell too much from enough.
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    // A gzip file is a series of members (RFC 1952, section 2.2), and nothing else.
    MultiGzDecoder::new(packed).take(most).read_to_end(&mut unpacked).map_err(|_| UnpackError::Malformed)?;
    if unpacked.len() > limit { Err(UnpackError::TooLarge) } else { Ok(unpacked.into()) }
}

/// Packs for the wire, at the level that costs the least time. `None` where memory cannot
/// be written, which does not happen.
pub fn pack(plain: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).ok()?;
    Some(encoder.finish().ok()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_is_unpacked_and_nothing_else_may_follow() {
        let [first, second] = [&b"one, "[..], b"two"].map(|plain| pack(plain).unwrap());
        let both = [&first[..], &second].concat();
        assert_eq!(unpack(&both, 8).unwrap(), &b"one, two"[..]);
        assert_eq!(unpack(&both, 7), Err(UnpackError::TooLarge), "of all together");
        for behind in [&b"x"[..], b"xxxxxxxxxxxxxxxxxxxx"] {
            assert_eq!(unpack(&[&first[..], behind].concat(), 100), Err(UnpackError::Malformed));
        }
        assert_eq!(unpack(&both[..both.len() - 1], 100), Err(UnpackError::Malformed));
    }
}
