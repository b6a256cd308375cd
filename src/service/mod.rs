//! The gRPC surface.

pub mod methods;
