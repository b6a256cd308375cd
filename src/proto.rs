//! The generated messages and services, one module a package.

#![allow(clippy::pedantic, missing_docs, reason = "generated code")]

/// The article's contract: no package.
pub mod article {
    include!(concat!(env!("OUT_DIR"), "/_.rs"));
}

/// The service's own contract.
pub mod user {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("user.v1");
    }
}

/// The standard health protocol, with List.
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}

/// Every proto of this service with what it imports, encoded, comments kept.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
