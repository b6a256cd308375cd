//! From the matched method to the function that answers it.

use std::{
    convert::Infallible,
    future::ready,
    pin::Pin,
    task::{Context, Poll},
};

use http::Response;
use tower_service::Service;
use user_service::rpc::status;

use crate::{
    calls::{AnswerBody, Request},
    conformance, interop,
};

/// Both services. `limit` bounds a message as sent and as unpacked.
#[derive(Clone, Debug)]
pub struct SuiteRouter {
    limit: usize,
}

impl SuiteRouter {
    pub fn new(limit: usize) -> Self {
        Self { limit }
    }
}

impl Service<Request> for SuiteRouter {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let limit = self.limit;
        macro_rules! serve {
            ($method:path) => {
                Box::pin(async move { Ok($method(request, limit).await) })
            };
        }
        let path = request.body().call.method.map_or("", |method| method.path);
        match path.rsplit_once('/') {
            Some(("/connectrpc.conformance.v1.ConformanceService", method)) => match method {
                "Unary" => serve!(conformance::unary),
                "IdempotentUnary" => serve!(conformance::idempotent_unary),
                "ServerStream" => serve!(conformance::server_stream),
                "ClientStream" => serve!(conformance::client_stream),
                "BidiStream" => serve!(conformance::bidi_stream),
                _ => unimplemented(),
            },
            Some(("/grpc.testing.TestService", method)) => match method {
                "EmptyCall" => serve!(interop::empty_call),
                "UnaryCall" => serve!(interop::unary_call),
                "StreamingOutputCall" => serve!(interop::streaming_output_call),
                "StreamingInputCall" => serve!(interop::streaming_input_call),
                "FullDuplexCall" => serve!(interop::full_duplex_call),
                "HalfDuplexCall" => serve!(interop::half_duplex_call),
                _ => unimplemented(),
            },
            _ => unimplemented(),
        }
    }
}

fn unimplemented() -> <SuiteRouter as Service<Request>>::Future {
    Box::pin(ready(Ok(status::unimplemented().into_http())))
}
