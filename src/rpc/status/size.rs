//! Keeps every error small enough for every proxy and client library.

use std::{borrow::Cow, collections::HashMap};

use tonic::{Code, Status, metadata::MetadataMap};
use tonic_types::{ErrorDetails, StatusExt};

use crate::rpc::status::DOMAIN;

/// The most bytes of an answer without a message, all of its headers together. nginx has a buffer of 4 KiB for it, unless another size is set.
pub const MAX_BYTES: usize = 4 * 1_024;

/// The bytes of a header besides its name and value (RFC 9113, section 6.5.2).
pub const HEADER_OVERHEAD_BYTES: usize = 32;

/// The most bytes of all headers but the message, the details and the metadata:
/// `:status`, `content-type`, `grpc-status`, and the names of the others.
const HEAD_BYTES: usize = 400;

/// The most bytes of `grpc-message`, after its percent-encoding.
const MAX_MESSAGE_BYTES: usize = 512;

/// The part of them for the end of a list: `; and 1000 more`.
const END_OF_LIST_BYTES: usize = 32;

/// Makes a status. Every error of this service is made here.
///
/// **Invariant:** the headers of an answer that is nothing but this status have at most
/// [`MAX_BYTES`]. A message that is too long is cut. Details that are too large are left
/// out, except the reason.
pub fn new(code: Code, message: &str, details: ErrorDetails, metadata: MetadataMap) -> Status {
    let message = bounded(message);
    let status = Status::with_error_details_and_metadata(code, &*message, details, metadata);
    if header_bytes(&status) <= MAX_BYTES {
        return status;
    }
    let reason = status.get_error_details().error_info().map(|info| info.reason.clone());
    let details = ErrorDetails::with_error_info(reason.unwrap_or_default(), DOMAIN, HashMap::new());
    Status::with_error_details_and_metadata(code, &*message, details, status.metadata().clone())
}

/// Whether a message that goes on with `next` is not cut, and can still end as a list.
pub fn has_room(message: &str, next: &str) -> bool {
    encoded_bytes(message) + encoded_bytes(next) + END_OF_LIST_BYTES <= MAX_MESSAGE_BYTES
}

/// The text, cut where it is longer than [`MAX_MESSAGE_BYTES`] once it is encoded.
fn bounded(text: &str) -> Cow<'_, str> {
    const CUT: &str = "...";
    if encoded_bytes(text) <= MAX_MESSAGE_BYTES {
        return text.into();
    }
    let mut bytes = CUT.len();
    let first_omitted = text.char_indices().find(|(at, character)| {
        bytes += encoded_bytes(&text[*at..at + character.len_utf8()]);
        bytes > MAX_MESSAGE_BYTES
    });
    let kept = first_omitted.map_or(text.len(), |(at, _)| at);
    format!("{}{CUT}", &text[..kept]).into()
}

/// The bytes of a text in `grpc-message`. tonic percent-encodes more bytes than gRPC
/// asks for, the space among them.
fn encoded_bytes(text: &str) -> usize {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"\"#%<>`?{}".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { 1 } else { 3 }).sum()
}

/// The most bytes of the headers of an answer that is nothing but this status.
pub fn header_bytes(status: &Status) -> usize {
    let metadata: usize = status
        .metadata()
        .as_ref()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD_BYTES)
        .sum();
    let details = status.details().len().div_ceil(3) * 4;
    HEAD_BYTES + encoded_bytes(status.message()) + details + metadata
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_between_two_characters() {
        for character in ["a", " ", "%", "\u{fc}", "\u{1f600}"] {
            let cut = bounded(&character.repeat(1_000)).into_owned();
            let (kept, dots) = cut.split_at(cut.len() - 3);
            assert_eq!((kept.replace(character, ""), dots), (String::new(), "..."));
            let room = MAX_MESSAGE_BYTES - encoded_bytes(&cut);
            assert!(room < encoded_bytes(character), "{room} bytes are left for {character:?}");
        }
        assert_eq!(bounded("short"), "short");
    }
}
