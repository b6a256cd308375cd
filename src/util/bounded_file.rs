//! Small files that others write: settings, keys, certificates, passwords.

use std::io::{self, Read};

/// The largest of them, in bytes. The bundle of all public authorities takes a fifth.
const MAX_BYTES: u64 = 1_024 * 1_024;

/// The byte order mark, which some editors write at the start of a file. Parsers would take
/// it for a part of the first item.
const MARK: &[u8] = "\u{feff}".as_bytes();

/// Reads a file of at most 1 MiB, without its byte order mark.
///
/// # Errors
/// It cannot be read, or is larger.
pub fn bytes(file: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other("is larger than 1 MiB"));
    }
    if bytes.starts_with(MARK) {
        bytes.drain(..MARK.len());
    }
    Ok(bytes)
}

/// Reads a file of at most 1 MiB of text, without its byte order mark.
///
/// # Errors
/// It cannot be read, is larger, or is not UTF-8.
pub fn text(file: impl Read) -> io::Result<String> {
    String::from_utf8(bytes(file)?).map_err(|_| io::Error::other("is not UTF-8: save it as UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_within_its_bound() {
        let fits = vec![b'a'; usize::try_from(MAX_BYTES).unwrap()];
        assert_eq!(text(&fits[..]).unwrap().len(), fits.len());
        let larger = io::repeat(b'a');
        assert!(bytes(larger).unwrap_err().to_string().contains("larger"));
        assert_eq!(text("\u{feff}one\u{feff}".as_bytes()).unwrap(), "one\u{feff}");
        assert!(text(&b"\xff"[..]).unwrap_err().to_string().contains("UTF-8"));
    }
}
