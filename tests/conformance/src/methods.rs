//! The methods of both suites, each treated as one of the service's own.

use user_service::rpc::methods::{Api, Method, MethodId, MethodKind};

/// A call of `path` passes the layers as a call of `like` does. Only its label is
/// another's: the layers label calls by the id.
const fn row(path: &'static str, like: MethodId, kind: MethodKind) -> Method {
    Method { id: like, path, api: Api::UserV1, kind, writes: false }
}

const fn unary(path: &'static str) -> Method {
    row(path, MethodId::GetUser, MethodKind::Unary)
}

const fn server_streaming(path: &'static str) -> Method {
    row(path, MethodId::WatchUsers, MethodKind::ServerStreaming)
}

/// Also where only the client streams: the layers treat both alike.
const fn bidi_streaming(path: &'static str) -> Method {
    row(path, MethodId::ImportUsers, MethodKind::BidiStreaming)
}

/// What is not implemented is no row.
static METHODS: [Method; 11] = [
    unary("/connectrpc.conformance.v1.ConformanceService/Unary"),
    unary("/connectrpc.conformance.v1.ConformanceService/IdempotentUnary"),
    server_streaming("/connectrpc.conformance.v1.ConformanceService/ServerStream"),
    bidi_streaming("/connectrpc.conformance.v1.ConformanceService/ClientStream"),
    bidi_streaming("/connectrpc.conformance.v1.ConformanceService/BidiStream"),
    unary("/grpc.testing.TestService/EmptyCall"),
    unary("/grpc.testing.TestService/UnaryCall"),
    server_streaming("/grpc.testing.TestService/StreamingOutputCall"),
    bidi_streaming("/grpc.testing.TestService/StreamingInputCall"),
    bidi_streaming("/grpc.testing.TestService/FullDuplexCall"),
    bidi_streaming("/grpc.testing.TestService/HalfDuplexCall"),
];

/// The method with exactly this path.
pub fn find(path: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.path == path)
}
