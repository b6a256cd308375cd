//! The protocol that a caller speaks.

/// The content types of gRPC with protobuf, which needs no translation.
pub const GRPC: [&str; 2] = ["application/grpc", "application/grpc+proto"];

/// A bounded label. The layers see every call as gRPC, whatever its caller speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    #[default]
    Grpc,
    GrpcWeb,
    Connect,
}

impl Protocol {
    /// In the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Grpc, Self::GrpcWeb, Self::Connect];

    /// In labels, settings and log lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::GrpcWeb => "grpc_web",
            Self::Connect => "connect",
        }
    }

    /// `rpc.system.name` of OpenTelemetry, which counts gRPC-Web as gRPC.
    pub fn otel_system(self) -> &'static str {
        match self {
            Self::Grpc | Self::GrpcWeb => "grpc",
            Self::Connect => "connectrpc",
        }
    }
}
