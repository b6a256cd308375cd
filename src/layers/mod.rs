//! The tower layers that every call passes on its way to the service, outermost first.
//!
//! **Invariant:** no layer reads a request's path after `route`; limits, labels and rules
//! go by the matched method. The layers deliberately know no message and no store.

mod admission;
mod call_log;
mod deadline;
mod early_refusal;
mod fair_share;
mod gate;
mod in_flight;
mod message_limit;
mod metrics;
mod observe;
mod panic;
mod route;
#[cfg(test)]
mod testing;
mod trace;

use std::{convert::Infallible, error::Error, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower::{ServiceBuilder, layer::layer_fn};
use tower_service::Service;

use self::{
    admission::{Admission, AdmissionLimits},
    call_log::CallLog,
    deadline::Deadlines,
    early_refusal::EarlyRefusals,
    gate::{Gate, GateRules},
    message_limit::MessageLimit,
    metrics::CallMetrics,
    observe::{Observe, Recorders},
    panic::CatchPanic,
    route::Route,
};
#[cfg(any(test, fuzzing))]
pub use self::{deadline::parse as parse_timeout, trace::parse as parse_traceparent};
pub use self::{in_flight::InFlight, message_limit::LimitedBody, route::FindMethod};
use crate::{
    auth::Auth,
    config::Config,
    rpc::{call::Inbound, early_refusal::EarlyRefusal},
    telemetry::TraceConfig,
};

/// Puts the layers around the service. Made once for the whole process: its
/// clones share every limit and count. `find` knows the methods that the service serves:
/// [`methods::find`](crate::rpc::methods::find) those of this service, and another function
/// those of a test. The second value refuses calls for the layers, where that is possible.
#[expect(clippy::type_complexity, reason = "neither part of the pair can have a name")]
pub fn stack<S, B, R>(
    service: S,
    find: FindMethod,
    config: &Config,
    traces: TraceConfig,
    in_flight: InFlight,
    auth: Option<Arc<Auth>>,
) -> (
    impl Service<
        Request<Inbound<B>>,
        Response = Response<impl Body<Data = Bytes, Error = R::Error> + Send + 'static>,
        Error = Infallible,
        Future: Send + 'static,
    > + Clone
    + Send
    + Sync
    + 'static,
    Option<Arc<dyn EarlyRefusal>>,
)
where
    S: Service<Request<Inbound<LimitedBody<B>>>, Response = Response<R>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + 'static,
    R: Body<Data = Bytes> + Default + Send + 'static,
{
    let metrics = Arc::new(CallMetrics::new(config.metric_names));
    let log = config.call_log.then(CallLog::new);
    let audit = config.audit_log.is_on();
    let recorders = Arc::new(Recorders { metrics: metrics.clone(), log, traces, in_flight, audit });
    let rules = auth.map(|auth| Arc::new(GateRules::new(auth)));
    let limits = Arc::new(AdmissionLimits::new(config));
    let early = EarlyRefusals::new(Arc::clone(&limits), Arc::clone(&recorders), find);
    let service = ServiceBuilder::new()
        // First, because every layer below uses the matched method and none the path.
        .layer(layer_fn(move |inner| Route::new(inner, find)))
        // Around all that can answer, so that shed, late and panicked calls are seen as their callers
        // see them.
        .layer(layer_fn(move |inner| Observe::new(inner, recorders.clone())))
        // Within what records, so that a panic is one more INTERNAL; around all that could panic.
        .layer(layer_fn(CatchPanic::new))
        // Before admission, so that a denied call takes no permit and a share is the caller's own.
        .layer(layer_fn(move |inner| Gate::new(inner, rules.clone())))
        // Before any work is done for a call, and before its timer could be set.
        .layer(layer_fn(move |inner| Admission::new(inner, limits.clone())))
        // Within admission: a late call keeps its place until its work is really dropped.
        .layer(layer_fn(|inner| Deadlines::new(inner, config)))
        // Last, as it is about what the service reads, and it reads only when it is called.
        .layer(layer_fn(move |inner| MessageLimit::new(inner, config.max_request_bytes, metrics.clone())))
        .service(service);
    (service, early.map(|early| Arc::new(early) as _))
}
