//! Messages between protobuf and JSON, by their descriptors and the rules of `ProtoJSON`.

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor};
use serde_json::error::Category;
use tonic::Status;

use crate::rpc::status;

/// Reads JSON. A field that the message does not have is ignored, because a newer client
/// may send it.
///
/// # Errors
/// Where the JSON cannot be read, and no more of it: the text may hold personal data.
pub fn to_proto(message: &MessageDescriptor, json: &[u8]) -> Result<Vec<u8>, Status> {
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let mut reader = serde_json::Deserializer::from_slice(json);
    let read = DynamicMessage::deserialize_with_options(message.clone(), &mut reader, &options);
    let read = read.and_then(|message| reader.end().map(|()| message));
    read.map(|message| message.encode_to_vec()).map_err(|error| {
        let what = match error.classify() {
            Category::Data => format!("is no {}", message.full_name()),
            Category::Eof => "ends too early".into(),
            Category::Syntax | Category::Io => "is not well-formed".into(),
        };
        status::malformed_json(&what, error.line(), error.column())
    })
}

/// Writes JSON; `None` where the bytes are no such message.
pub fn of_proto(message: &MessageDescriptor, proto: Bytes) -> Option<Vec<u8>> {
    serde_json::to_vec(&DynamicMessage::decode(message.clone(), proto).ok()?).ok()
}

/// The same as a value, to be a part of another one.
pub fn value_of_proto(message: MessageDescriptor, proto: &[u8]) -> Option<serde_json::Value> {
    serde_json::to_value(DynamicMessage::decode(message, proto).ok()?).ok()
}
