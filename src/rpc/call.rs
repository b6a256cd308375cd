//! A call on its way to the service: its method, deadline, caller and connection.

use std::sync::Arc;

use http::Request;
use metrics::counter;
use tokio::time::Instant;
use tonic::Status;

use super::{
    audit::AuditRecord, goaway::ConnectionHandle, methods::Method, permits::Limiter, protocol::Protocol,
    status,
};
use crate::domain::{Caller, Deadline, Idempotency, RequestId, UserId};

/// The counter of denied calls, by `reason`.
pub const DENIALS_TOTAL: &str = "user_service_denials_total";

/// The reason of a denial because the record is not the caller's own.
pub const NOT_OWN: &str = "not_own";

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

/// Whose records a call may touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Access {
    #[default]
    All,
    /// The record with this id, which is the caller's own.
    Own(Arc<str>),
}

/// One call. Each layer adds what it finds out.
#[derive(Clone, Debug)]
pub struct Call {
    /// What its path matched; `None` for a path that nothing is served under.
    pub method: Option<&'static Method>,
    /// What its caller speaks.
    pub protocol: Protocol,
    pub started: Instant,
    pub deadline: Deadline,
    pub caller: Caller,
    pub access: Access,
    /// Where the call's audit line is put together; `None` where none is written.
    pub audit: Option<Arc<AuditRecord>>,
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
            protocol: Protocol::Grpc,
            started: Instant::now(),
            deadline: Deadline::NONE,
            caller: Caller::ANONYMOUS,
            access: Access::All,
            audit: None,
            connection,
            limiter: None,
        }
    }

    /// Whether the call may touch the record with this id; `None` where the request does not
    /// name it by its id. Comes before the store is asked, so that a denial says nothing of
    /// who exists.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` for a record that is not the caller's own, where it may touch no
    /// other.
    pub fn authorize(&self, id: Option<&UserId>) -> Result<(), Status> {
        if let Some(id) = id {
            self.audit_user(id);
        }
        match &self.access {
            Access::All => Ok(()),
            Access::Own(own) if id.is_some_and(|id| id.as_str() == &**own) => Ok(()),
            Access::Own(_) => {
                counter!(DENIALS_TOTAL, "reason" => NOT_OWN).increment(1);
                if let Some(audit) = &self.audit {
                    audit.deny(NOT_OWN);
                }
                Err(status::not_permitted())
            }
        }
    }

    /// Names the user in the call's audit line.
    pub fn audit_user(&self, id: &UserId) {
        if let Some(audit) = &self.audit {
            audit.set_user(id);
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
