//! What is known of a call on its way to the service that answers it.

use http::Extensions;
use tokio::time::Instant;

use super::{leaving::Farewells, methods::Method};
use crate::domain::{Caller, Deadline, Idempotency, RequestId};

/// Of one call, in its request's extensions: whoever finds something out on the way
/// adds it here. It is one extension, as each costs every call an allocation.
#[derive(Clone, Debug)]
pub struct Call {
    /// What its path matched; `None` for a path that nothing is served under.
    pub method: Option<&'static Method>,
    pub started: Instant,
    pub deadline: Deadline,
    pub caller: Caller,
    /// What it knows of its connection.
    pub farewells: Farewells,
}

impl Call {
    /// A call that begins now.
    pub fn on(farewells: Farewells) -> Self {
        Self {
            method: None,
            started: Instant::now(),
            deadline: Deadline::NONE,
            caller: Caller::ANONYMOUS,
            farewells,
        }
    }

    /// What is known of a call whose request has these extensions.
    pub fn of(extensions: &Extensions) -> Self {
        extensions.get().cloned().unwrap_or_default()
    }

    /// Until when its answer is worth having.
    pub fn deadline(extensions: &Extensions) -> Deadline {
        extensions.get::<Self>().map_or(Deadline::NONE, |call| call.deadline)
    }

    /// The method that a call is for, where that is known.
    pub fn method(extensions: &Extensions) -> Option<&'static Method> {
        extensions.get::<Self>().and_then(|call| call.method)
    }

    /// How to know this write again, if the caller named it. `payload` is what was
    /// asked for, the name left out.
    pub fn idempotency(
        &self,
        method: &str,
        request_id: Option<RequestId>,
        payload: &impl prost::Message,
    ) -> Option<Idempotency> {
        let request_id = request_id?;
        Some(Idempotency::new(&self.caller, method, request_id, &payload.encode_to_vec()))
    }
}

/// On no connection, as where no listener is in front.
impl Default for Call {
    fn default() -> Self {
        Self::on(Farewells::default())
    }
}
