//! Refuses calls for the layers, for less than what it takes to pass them.
//!
//! Such a call is recorded like any other one. A call that is translated, or that has more
//! than one request or answer, passes the layers.

use std::sync::Arc;

use http::{HeaderMap, Response, Uri, header::CONTENT_TYPE};
use tonic::Code;

use super::{
    admission::AdmissionLimits,
    observe::{CallRecord, Recorders},
    route::{self, FindMethod},
};
use crate::rpc::{
    call::Call,
    early_refusal::EarlyRefusal,
    goaway::ConnectionHandle,
    methods::{Method, MethodKind},
    permits::turned_away,
    protocol::GRPC,
};

/// Refuses where admission would.
#[derive(Debug)]
pub struct EarlyRefusals {
    limits: Arc<AdmissionLimits>,
    recorders: Arc<Recorders>,
    find: FindMethod,
}

impl EarlyRefusals {
    /// `None` where a refusal depends on who calls, or says so in the audit log.
    pub fn new(limits: Arc<AdmissionLimits>, recorders: Arc<Recorders>, find: FindMethod) -> Option<Self> {
        let depends_on_caller = limits.has_shares() || recorders.audit;
        (!depends_on_caller).then_some(Self { limits, recorders, find })
    }
}

impl EarlyRefusal for EarlyRefusals {
    fn due(
        &self,
        method: &http::Method,
        uri: &Uri,
        headers: &HeaderMap,
        connection: &ConnectionHandle,
    ) -> Option<&'static Method> {
        let method = route::matched(method, uri, self.find)?;
        let is_due = method.kind == MethodKind::Unary
            && self.limits.is_full(method, connection)
            && headers.get(CONTENT_TYPE).is_some_and(|value| GRPC.iter().any(|name| value == name));
        is_due.then_some(method)
    }

    fn refuse(
        &self,
        method: &'static Method,
        headers: &HeaderMap,
        connection: &ConnectionHandle,
    ) -> Response<()> {
        self.limits.count_shed(method, connection);
        let call = Call { method: Some(method), ..Call::on(connection.clone()) };
        CallRecord::start(&call, headers, Arc::clone(&self.recorders)).end(Code::Unavailable);
        turned_away()
    }
}
