//! Lets a call through whose caller may make it.
//!
//! A denied call costs no permit and its body is not read. With auth off the gate is open
//! and costs one comparison.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderMap, Request, Response};
use metrics::{Counter, counter};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{
    auth::{Auth, Denial},
    rpc::{
        call::{Call, DENIALS_TOTAL, Inbound},
        status::{self, PreparedAnswer},
    },
    util::counter::at_zero,
};

/// The rules of the process, and how often they denied a call.
#[derive(Debug)]
pub struct GateRules {
    auth: Arc<Auth>,
    denials: [Counter; Denial::REASONS.len()],
    missing: PreparedAnswer,
    rejected: PreparedAnswer,
    not_permitted: PreparedAnswer,
}

impl GateRules {
    pub fn new(auth: Arc<Auth>) -> Self {
        let denials = Denial::REASONS.map(|reason| at_zero(counter!(DENIALS_TOTAL, "reason" => reason)));
        Self {
            auth,
            denials,
            missing: PreparedAnswer::of(status::credentials_missing()),
            rejected: PreparedAnswer::of(status::credentials_rejected()),
            not_permitted: PreparedAnswer::of(status::not_permitted()),
        }
    }

    /// Adds the caller and its access to the call.
    fn admit(&self, headers: &HeaderMap, call: &mut Call) -> Result<(), Denial> {
        // Nothing is served under a path that matches no method.
        let Some(method) = call.method else { return Ok(()) };
        let decided = self.auth.authorize(method, headers, call.connection.peer());
        if let Some(audit) = &call.audit {
            match &decided {
                Ok(granted) => audit.set_caller(&granted.caller),
                Err(denial) => {
                    if let Denial::NotPermitted(caller) = denial {
                        audit.set_caller(caller);
                    }
                    audit.deny(denial.reason());
                }
            }
        }
        let granted = decided?;
        (call.caller, call.access) = (granted.caller, granted.access);
        Ok(())
    }

    fn refuse<R: Default>(&self, denial: &Denial) -> Response<R> {
        self.denials[denial.index()].increment(1);
        match denial {
            Denial::Missing => &self.missing,
            Denial::NotPermitted(_) => &self.not_permitted,
            _ => &self.rejected,
        }
        .response()
    }
}

/// Denies calls in place of the inner service.
#[derive(Clone, Debug)]
pub struct Gate<S> {
    inner: S,
    /// `None` where auth is off.
    rules: Option<Arc<GateRules>>,
}

impl<S> Gate<S> {
    pub fn new(inner: S, rules: Option<Arc<GateRules>>) -> Self {
        Self { inner, rules }
    }
}

impl<S, B, R> Service<Request<Inbound<B>>> for Gate<S>
where
    S: Service<Request<Inbound<B>>, Response = Response<R>>,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = GateFuture<S::Future, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Inbound<B>>) -> Self::Future {
        if let Some(rules) = &self.rules {
            let (parts, Inbound { mut call, body }) = request.into_parts();
            if let Err(denial) = rules.admit(&parts.headers, &mut call) {
                return GateFuture::Denied { response: Some(rules.refuse(&denial)) };
            }
            request = Request::from_parts(parts, Inbound { call, body });
        }
        GateFuture::Admitted { inner: self.inner.call(request) }
    }
}

pin_project! {
    /// The future of [`Gate`].
    #[project = GateProjection]
    pub enum GateFuture<F, R> {
        Admitted { #[pin] inner: F },
        Denied { response: Option<Response<R>> },
    }
}

impl<F, R, E> Future for GateFuture<F, R>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            GateProjection::Admitted { inner } => inner.poll(cx),
            GateProjection::Denied { response } => {
                Poll::Ready(Ok(response.take().expect("a future is not polled after its end")))
            }
        }
    }
}
