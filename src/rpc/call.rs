//! A call on its way to the service: its method, deadline, caller and connection.

use std::sync::Arc;

use http::Request;
use tokio::time::Instant;

use super::{goaway::ConnectionHandle, methods::Method, permits::Limiter};
use crate::domain::{Caller, Deadline, Idempotency, RequestId};

/// A request's body with its call. It is no extension of the request, because
/// extensions cost every call several allocations.
#[derive(Debug)]
pub struct Inbound<B> {
    pub call: Call,
    pub body: B,
}

impl<B> Inbound<B> {
    /// The request, with this call.
    pub fn request(request: Request<B>, call: Call) -> Request<Self> {
        request.map(|body| Self { call, body })
    }

    /// The call, and the request without it.
    pub fn split(request: Request<Self>) -> (Call, Request<B>) {
        let (parts, Self { call, body }) = request.into_parts();
        (call, Request::from_parts(parts, body))
    }
}

/// One call. Each layer adds what it finds out.
#[derive(Clone, Debug)]
pub struct Call {
    /// What its path matched; `None` for a path that nothing is served under.
    pub method: Option<&'static Method>,
    pub started: Instant,
    pub deadline: Deadline,
    pub caller: Caller,
    /// Its connection's number and GOAWAY signal.
    pub connection: ConnectionHandle,
    /// Where a unary call takes its place once its request is whole.
    pub limiter: Option<Arc<Limiter>>,
}

impl Call {
    /// A call that begins now.
    pub fn on(connection: ConnectionHandle) -> Self {
        Self {
            method: None,
            started: Instant::now(),
            deadline: Deadline::NONE,
            caller: Caller::ANONYMOUS,
            connection,
            limiter: None,
        }
    }

    /// How to know this write again, if the caller named it. `payload` is what was
    /// asked for, the name left out.
    ///
    /// # Panics
    /// If no method was matched: nothing serves such a call.
    pub fn idempotency(
        &self,
        request_id: Option<RequestId>,
        payload: &impl prost::Message,
    ) -> Option<Idempotency> {
        let request_id = request_id?;
        let method = self.method.expect("a call that is served has its method").full_name();
        Some(Idempotency::new(&self.caller, method, request_id, &payload.encode_to_vec()))
    }
}

/// On no connection, as where no listener is in front.
impl Default for Call {
    fn default() -> Self {
        Self::on(ConnectionHandle::default())
    }
}
