//! Server reflection, v1 and v1alpha: what grpcurl and its like read.
//!
//! The two versions differ in their package only, so one implementation answers both.
//! tonic-reflection ends the stream with a status where the protocol has an
//! `ErrorResponse`, so only its messages are used here.

use std::{collections::HashSet, pin::Pin, sync::Arc};

use futures_util::{Stream, stream};
use prost::{DecodeError, Message as _};
use prost_types::FileDescriptorSet;
use tonic::{Code, Status, Streaming};
use tonic_reflection::pb::{
    v1::{
        self, ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
        ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    },
    v1alpha,
};

use self::descriptors::Descriptors;
use super::health::Health;
use crate::{proto::DESCRIPTORS, rpc::status};

mod descriptors;

/// The file that only the article's contract is in.
const ARTICLE_FILE: &str = "user.proto";

/// Every descriptor that a caller can meet, error details included.
const SETS: [&[u8]; 4] = [
    DESCRIPTORS,
    tonic_types::pb::FILE_DESCRIPTOR_SET,
    v1::FILE_DESCRIPTOR_SET,
    v1alpha::FILE_DESCRIPTOR_SET,
];

/// Every file that is served, once. Without `article_api` the article's file is not served
/// at all: neither its service nor its messages can be described or called.
///
/// # Errors
/// A set that was compiled in cannot be read.
pub fn served_files(article_api: bool) -> Result<FileDescriptorSet, DecodeError> {
    let (mut names, mut files) = (HashSet::new(), FileDescriptorSet::default());
    for set in SETS {
        for file in FileDescriptorSet::decode(set)?.file {
            // tonic-types has google/rpc/status.proto under another name.
            let message = file.message_type.first().map(|message| (file.package(), message.name()));
            let name =
                message.map_or(file.name().to_owned(), |(package, message)| format!("{package}.{message}"));
            if (article_api || file.name() != ARTICLE_FILE) && names.insert(name) {
                files.file.push(file);
            }
        }
    }
    Ok(files)
}

/// The answers of one stream.
pub type Answers = Pin<Box<dyn Stream<Item = Result<ServerReflectionResponse, Status>> + Send>>;

/// The reflection protocol.
pub struct Reflection {
    descriptors: Arc<Descriptors>,
    max_message_bytes: usize,
    health: Health,
}

impl Reflection {
    /// Of the [`served_files`].
    pub fn new(article_api: bool, max_message_bytes: usize, health: &Health) -> Result<Self, DecodeError> {
        let descriptors = Descriptors::new(&served_files(article_api)?);
        Ok(Self { descriptors: Arc::new(descriptors), max_message_bytes, health: health.clone() })
    }

    /// Answers each request of a stream in its order. The stream ends after the client's
    /// last request, with a request that cannot be read, or in a drain.
    pub fn answers(&self, requests: Streaming<ServerReflectionRequest>) -> Answers {
        let (descriptors, limit) = (Arc::clone(&self.descriptors), self.max_message_bytes);
        let drain = Box::pin(self.health.streams_ended());
        Box::pin(stream::unfold(Some((requests, drain)), move |open| {
            let descriptors = Arc::clone(&descriptors);
            async move {
                let (mut requests, mut drain) = open?;
                let request = tokio::select! {
                    biased;
                    () = &mut drain => return Some((Err(status::draining()), None)),
                    request = requests.message() => request,
                };
                match request {
                    Ok(request) => Some((Ok(answer(&descriptors, request?)), Some((requests, drain)))),
                    Err(broken) => Some((Err(status::with_error_details(&broken, limit)), None)),
                }
            }
        }))
    }
}

fn answer(descriptors: &Descriptors, request: ServerReflectionRequest) -> ServerReflectionResponse {
    let found = match &request.message_request {
        Some(MessageRequest::FileByFilename(name)) => described(descriptors.file(name), "no such file"),
        Some(MessageRequest::FileContainingSymbol(symbol)) => {
            described(descriptors.file_of_symbol(symbol), "no such symbol")
        }
        Some(MessageRequest::FileContainingExtension(_)) => described(None, "no such extension"),
        Some(MessageRequest::AllExtensionNumbersOfType(name)) if descriptors.is_message(name) => {
            let none = ExtensionNumberResponse { base_type_name: name.clone(), extension_number: Vec::new() };
            MessageResponse::AllExtensionNumbersResponse(none)
        }
        Some(MessageRequest::AllExtensionNumbersOfType(_)) => described(None, "no such message"),
        Some(MessageRequest::ListServices(_)) => {
            let service = |name: &String| ServiceResponse { name: name.clone() };
            let service = descriptors.services().iter().map(service).collect();
            MessageResponse::ListServicesResponse(ListServiceResponse { service })
        }
        None => error(Code::InvalidArgument, "the request asks for nothing that is known here"),
    };
    ServerReflectionResponse {
        valid_host: request.host.clone(),
        original_request: Some(request),
        message_response: Some(found),
    }
}

fn described(file: Option<&[u8]>, missing: &str) -> MessageResponse {
    match file {
        Some(file) => {
            let file_descriptor_proto = vec![file.to_vec()];
            MessageResponse::FileDescriptorResponse(FileDescriptorResponse { file_descriptor_proto })
        }
        None => error(Code::NotFound, missing),
    }
}

fn error(code: Code, message: &str) -> MessageResponse {
    MessageResponse::ErrorResponse(ErrorResponse { error_code: code.into(), error_message: message.into() })
}

#[cfg(test)]
mod tests;
