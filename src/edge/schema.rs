//! What the descriptors say of every method that is served: its messages, whether it
//! streams, and whether it may be called by GET.

use std::collections::HashMap;

use prost_reflect::{DescriptorError, DescriptorPool, MessageDescriptor};
use prost_types::{FileDescriptorSet, method_options::IdempotencyLevel};

/// The methods and messages that calls are translated by.
#[derive(Debug)]
pub struct Schema {
    pool: DescriptorPool,
    /// By path.
    methods: HashMap<String, MethodSchema>,
}

/// One method.
#[derive(Debug)]
pub struct MethodSchema {
    pub input: MessageDescriptor,
    pub output: MessageDescriptor,
    /// Whether its request or its answer is a stream.
    pub streams: bool,
    /// Whether GET may call it: it has one message each way, and is declared to be without
    /// side effects.
    pub takes_get: bool,
}

impl Schema {
    /// Of every service in these files.
    ///
    /// # Errors
    /// A file is missing that another one imports.
    pub fn new(mut files: FileDescriptorSet) -> Result<Self, DescriptorError> {
        for file in &mut files.file {
            // Comments are half of the memory, and nothing here reads them.
            file.source_code_info = None;
        }
        let pool = DescriptorPool::from_file_descriptor_set(files)?;
        let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
        let methods = methods
            .map(|method| {
                let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
                let options = method.method_descriptor_proto().options.clone().unwrap_or_default();
                let streams = method.is_client_streaming() || method.is_server_streaming();
                let is_safe = options.idempotency_level() == IdempotencyLevel::NoSideEffects;
                let takes_get = is_safe && !streams;
                (path, MethodSchema { input: method.input(), output: method.output(), streams, takes_get })
            })
            .collect();
        Ok(Self { pool, methods })
    }

    /// The method under exactly this path.
    pub fn method(&self, path: &str) -> Option<&MethodSchema> {
        self.methods.get(path)
    }

    /// The message of this full name.
    pub fn message(&self, name: &str) -> Option<MessageDescriptor> {
        self.pool.get_message_by_name(name)
    }
}
