//! Turns calls away when more are in flight than the server can serve well.
//!
//! One limit for unary calls and one for streams, each for the whole process instead of
//! a connection, because overload may come from many connections. Unary calls that write
//! have a second limit. They pile up while the store takes no writes, and reads must still
//! find a permit. A call is in flight until its answer has been sent to the end.
//!
//! A stream takes its permit here. A unary call takes it when its request has arrived
//! whole (`service/unary.rs`): requests that never do would block all others.
//! The body of a call that is refused here is not read.
//!
//! Before these limits comes the caller's own share (`fair_share.rs`). The rest of a limit
//! is shared among connections (`rpc/holdings.rs`).

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::fair_share::{FairShares, OverQuota, SharePermit, over_quota};
use crate::{
    config::Config,
    rpc::{
        call::Inbound,
        goaway::ConnectionHandle,
        holdings::LimitKind,
        methods::{Method, MethodKind},
        permits::{Limiter, Permit, turned_away},
    },
    util::guarded_body::GuardedBody,
};

/// The most streams of health and reflection. A client that checks health has one for each
/// of its connections.
const MAX_INFRASTRUCTURE_STREAMS: usize = 8_192;

/// The limits, shared by every connection and thread.
#[derive(Debug)]
pub struct AdmissionLimits {
    unary: Arc<Limiter>,
    writes: Arc<Limiter>,
    streams: Arc<Limiter>,
    infrastructure: Arc<Limiter>,
    /// `None` where no caller's share is limited.
    shares: Option<FairShares>,
}

impl AdmissionLimits {
    pub fn new(config: &Config) -> Self {
        let unary = Arc::new(Limiter::new(LimitKind::Unary, config.max_unary_calls, None));
        let writes = Limiter::new(LimitKind::Write, config.store_queue, Some(Arc::clone(&unary)));
        let streams = Limiter::new(LimitKind::Streaming, config.max_streaming_calls, None);
        let infrastructure = Limiter::new(LimitKind::Infrastructure, MAX_INFRASTRUCTURE_STREAMS, None);
        Self {
            unary,
            writes: Arc::new(writes),
            streams: Arc::new(streams),
            infrastructure: Arc::new(infrastructure),
            shares: FairShares::new(config),
        }
    }

    pub fn has_shares(&self) -> bool {
        self.shares.is_some()
    }

    /// Whether the next call of this connection to a method would be turned away.
    pub fn is_full(&self, method: &Method, connection: &ConnectionHandle) -> bool {
        self.limiter(Some(method)).is_some_and(|limiter| limiter.full(connection).is_some())
    }

    /// Counts a call that is turned away.
    pub fn count_shed(&self, method: &Method, connection: &ConnectionHandle) {
        if let Some(limiter) = self.limiter(Some(method)) {
            limiter.full(connection).unwrap_or(limiter).count_shed();
        }
    }

    /// What a call passes. Probes and tools must get through when callers do not, so only
    /// their streams have a limit, a separate one. A path that nothing is served under costs
    /// nothing worth a limit.
    fn limiter(&self, method: Option<&Method>) -> Option<&Arc<Limiter>> {
        let method = method?;
        if method.api.is_infrastructure() {
            return (method.kind != MethodKind::Unary).then_some(&self.infrastructure);
        }
        Some(match method.kind {
            MethodKind::Unary if method.writes => &self.writes,
            MethodKind::Unary => &self.unary,
            MethodKind::ServerStreaming | MethodKind::BidiStreaming => &self.streams,
        })
    }
}

/// Why a call is turned away.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    Overload,
    Quota,
}

/// What a call holds until its answer has ended.
#[derive(Debug)]
pub struct CallPermits {
    _permit: Option<Permit>,
    _share: Option<SharePermit>,
}

/// Answers UNAVAILABLE in place of the inner service when a limit is reached.
#[derive(Clone, Debug)]
pub struct Admission<S> {
    inner: S,
    limits: Arc<AdmissionLimits>,
}

impl<S> Admission<S> {
    pub fn new(inner: S, limits: Arc<AdmissionLimits>) -> Self {
        Self { inner, limits }
    }
}

impl<S, B, R> Service<Request<Inbound<B>>> for Admission<S>
where
    S: Service<Request<Inbound<B>>, Response = Response<R>>,
    R: Default,
{
    type Response = Response<GuardedBody<R, CallPermits>>;
    type Error = S::Error;
    type Future = AdmissionFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Inbound<B>>) -> Self::Future {
        let call = &mut request.body_mut().call;
        let limiter = self.limits.limiter(call.method);
        // First, so that the caller with the most calls is not told that the server is full.
        let share = match &self.limits.shares {
            Some(shares) if call.method.is_some_and(|method| !method.api.is_infrastructure()) => {
                match shares.enter(&call.caller, call.connection.source()) {
                    Ok(share) => share,
                    Err(OverQuota) => return AdmissionFuture::refused(Refusal::Quota),
                }
            }
            _ => None,
        };
        let permit = match limiter {
            None => None,
            Some(limiter) if call.method.is_some_and(|method| method.kind == MethodKind::Unary) => {
                if let Some(full) = limiter.full(&call.connection) {
                    full.count_shed();
                    return AdmissionFuture::refused(Refusal::Overload);
                }
                call.limiter = Some(Arc::clone(limiter));
                None
            }
            Some(limiter) => match limiter.enter(&call.connection) {
                None => return AdmissionFuture::refused(Refusal::Overload),
                permit => permit,
            },
        };
        AdmissionFuture { inner: Some(self.inner.call(request)), refusal: Refusal::Overload, permit, share }
    }
}

pin_project! {
    /// The future of [`Admission`]: nothing within where the call is turned away.
    pub struct AdmissionFuture<F> {
        #[pin]
        inner: Option<F>,
        refusal: Refusal,
        permit: Option<Permit>,
        share: Option<SharePermit>,
    }
}

impl<F> AdmissionFuture<F> {
    fn refused(refusal: Refusal) -> Self {
        Self { inner: None, refusal, permit: None, share: None }
    }
}

impl<F, R, E> Future for AdmissionFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Default,
{
    type Output = Result<Response<GuardedBody<R, CallPermits>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(inner) = this.inner.as_pin_mut() else {
            return Poll::Ready(Ok(match this.refusal {
                Refusal::Overload => turned_away(),
                Refusal::Quota => over_quota(),
            }));
        };
        let response = ready!(inner.poll(cx))?;
        let held = CallPermits { _permit: this.permit.take(), _share: this.share.take() };
        Poll::Ready(Ok(response.map(|inner| GuardedBody::new(inner, Some(held)))))
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::ready};

    use futures_util::FutureExt;
    use tonic::{Code, Status};
    use tonic_types::StatusExt;
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::{
        layers::testing::{STREAM, Script, Step, UNARY, WRITE, head, request, response},
        telemetry::testing::recorded,
    };

    type Answer = Response<GuardedBody<GuardedBody<Script, Permit>, CallPermits>>;

    fn answer(limits: &Arc<AdmissionLimits>, path: &str) -> Answer {
        let serve = |request: Request<Inbound<Script>>| {
            let call = request.into_body().call;
            let place = call.limiter.map(|limiter| limiter.enter(&call.connection).expect("it was not full"));
            let answer = response(&[Step::Hang]).map(|script| GuardedBody::new(script, place));
            ready(Ok::<_, Infallible>(answer))
        };
        let service = Admission::new(service_fn(serve), limits.clone());
        service.oneshot(request(path)).now_or_never().unwrap().unwrap()
    }

    /// The places taken, of all unary calls and of those that write.
    fn taken(limits: &AdmissionLimits) -> (usize, usize) {
        (limits.unary.in_flight(), limits.writes.in_flight())
    }

    fn limits(max_unary_calls: usize) -> Arc<AdmissionLimits> {
        Arc::new(AdmissionLimits::new(&Config {
            max_unary_calls,
            max_streaming_calls: 0,
            ..Config::default()
        }))
    }

    #[test]
    fn a_call_has_its_place_until_its_answer_has_ended() {
        let limits = limits(2);
        let first = answer(&limits, UNARY);
        let second = answer(&limits, UNARY);
        let refused = head(&answer(&limits, UNARY)).expect("there is no third place");
        assert_eq!(refused.code(), Code::Unavailable);
        drop(first);
        let third = answer(&limits, UNARY);
        assert_eq!(head(&third).map(|status| status.code()), None, "the first place is free again");
        drop((second, third));
        assert_eq!(limits.unary.in_flight(), 0);
    }

    #[test]
    fn calls_that_write_leave_room_for_others() {
        let limits = Arc::new(AdmissionLimits::new(&Config {
            max_unary_calls: 3,
            store_queue: 2,
            ..Config::default()
        }));
        let mut writes: Vec<_> = (0..2).map(|_| answer(&limits, WRITE)).collect();
        let refused = head(&answer(&limits, WRITE)).expect("there is no third place for a write");
        assert_eq!(refused.code(), Code::Unavailable);
        let read = answer(&limits, UNARY);
        assert!(head(&read).is_none());
        assert_eq!(taken(&limits), (3, 2));
        writes.pop();
        let second_read = answer(&limits, UNARY);
        assert!(head(&answer(&limits, WRITE)).is_some(), "a write is a call like the others");
        assert_eq!(taken(&limits), (3, 1));
        drop((writes, read, second_read));
        assert_eq!(taken(&limits), (0, 0));
    }

    #[test]
    fn a_stream_that_its_caller_gives_up_frees_its_place() {
        let limits = Arc::new(AdmissionLimits::new(&Config { max_streaming_calls: 1, ..Config::default() }));
        let service = Admission::new(
            service_fn(|_: Request<Inbound<Script>>| {
                std::future::pending::<Result<Response<Script>, Infallible>>()
            }),
            limits.clone(),
        );
        let mut call = Box::pin(service.oneshot(request("/user.v1.UserService/WatchUsers")));
        assert!(call.as_mut().now_or_never().is_none());
        assert_eq!(limits.streams.in_flight(), 1);
        drop(call);
        assert_eq!(limits.streams.in_flight(), 0);
    }

    #[test]
    fn a_unary_call_has_no_place_before_its_request_is_whole() {
        let limits = limits(1);
        let service = Admission::new(
            service_fn(|_: Request<Inbound<Script>>| {
                std::future::pending::<Result<Response<Script>, Infallible>>()
            }),
            limits.clone(),
        );
        let mut call = Box::pin(service.oneshot(request(UNARY)));
        assert!(call.as_mut().now_or_never().is_none());
        assert_eq!(limits.unary.in_flight(), 0);
    }

    #[test]
    fn a_refusal_says_when_to_come_back_twice_the_same() {
        let refused: Status = head(&answer(&limits(0), UNARY)).unwrap();
        let details = refused.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "OVERLOADED");
        let pushback = refused.metadata().get("grpc-retry-pushback-ms").unwrap().to_str().unwrap();
        let delay = details.retry_info().unwrap().retry_delay.unwrap();
        assert_eq!(pushback, delay.as_millis().to_string());
    }

    #[test]
    fn probes_and_unknown_paths_are_never_turned_away() {
        let limits = limits(0);
        for path in [STREAM, "/grpc.health.v1.Health/Check", "/no.such.Service/Method"] {
            assert!(head(&answer(&limits, path)).is_none(), "{path}");
        }
    }

    #[test]
    fn what_is_turned_away_is_counted() {
        let lines = recorded(|| {
            let limits = limits(1);
            let _first = answer(&limits, UNARY);
            for _ in 0..3 {
                answer(&limits, UNARY);
            }
            // Before the first call ends.
            assert_eq!(limits.unary.in_flight(), 1);
        });
        assert!(
            lines.contains(&"grpc_server_admission_shed_total{kind=\"unary\"} 3".to_owned()),
            "{lines:?}"
        );
        assert!(lines.contains(&"grpc_server_admission_limit{kind=\"unary\"} 1".to_owned()), "{lines:?}");
    }
}
