//! Helpers of this module's tests: a router over the store in memory, called through the
//! generated clients.

use std::sync::{Arc, Mutex};

use http::{HeaderValue, Request, header::CONTENT_TYPE};
use tonic::{Code, Status, body::Body};
use tonic_types::{ErrorDetails, StatusExt};
use tower::util::MapRequest;

use super::{Health, Router, StoreSlot};
use crate::{
    config::{Config, StoreUrl},
    domain::{self, Deadline, Error, Store},
    feed::Feed,
    rpc::{
        call::{Call, Inbound},
        methods,
    },
    store,
};

#[path = "../../tests/support/forward.rs"]
mod forward;

use forward::{Forward, Hooks};

pub type Transport = MapRequest<Router, fn(Request<Body>) -> Request<Inbound<Body>>>;

/// A router with its store open.
pub fn router() -> (Router, Arc<ScriptedStore>) {
    router_with(&Config::default())
}

pub fn router_with(config: &Config) -> (Router, Arc<ScriptedStore>) {
    let store = Arc::new(ScriptedStore::new());
    let slot = StoreSlot::default();
    slot.open(store.clone(), Feed::new(store.clone(), 1));
    (Router::new(config, &slot, &Health::new(config)), store)
}

/// The router as a client's transport.
pub fn transport(router: Router) -> Transport {
    MapRequest::new(router, matched)
}

/// Matches the path as the layers do. What else is known of the call may be an extension,
/// which is what a client can give its request.
fn matched(mut request: Request<Body>) -> Request<Inbound<Body>> {
    let call = request.extensions_mut().remove().unwrap_or_default();
    let method = methods::find(request.uri().path());
    Inbound::request(request, Call { method, ..call })
}

/// A call as the layers pass it, for requests that no client would send.
pub fn raw(path: &str, body: Vec<u8>) -> Request<Inbound<Body>> {
    let body = Body::new(http_body_util::Full::new(body.into()));
    let mut request = Request::post(path).body(body).unwrap();
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    matched(request)
}

/// The details of an error, once what every error owes is checked.
pub fn details(status: &Status, code: Code, reason: &str) -> ErrorDetails {
    assert_eq!(status.code(), code, "{status:?}");
    let kinds: Vec<_> = {
        let status: tonic_types::Status = prost::Message::decode(status.details()).unwrap();
        assert_eq!(status.code, code as i32);
        status.details.into_iter().map(|any| any.type_url).collect()
    };
    for (i, kind) in kinds.iter().enumerate() {
        assert!(!kinds[i + 1..].contains(kind), "{kind} is there twice");
    }
    assert!(!status.message().contains('@'), "an address in {:?}", status.message());
    assert!(!status.details().contains(&b'@'), "an address in the details of {:?}", status.message());
    let details = status.get_error_details();
    let info = details.error_info().expect("every error has ErrorInfo");
    assert_eq!((info.domain.as_str(), info.reason.as_str()), ("user-service", reason));
    details
}

/// The fields that an `INVALID_ARGUMENT` names.
pub fn bad_fields(status: &Status) -> Vec<String> {
    let details = details(status, Code::InvalidArgument, "INVALID_FIELDS");
    details.bad_request().unwrap().field_violations.iter().map(|v| v.field.clone()).collect()
}

/// The store in memory, which fails when it is told to and notes deadlines.
pub struct Scripted {
    store: Arc<dyn Store>,
    error: Mutex<Option<Error>>,
    deadline: Mutex<Option<Deadline>>,
}

pub type ScriptedStore = Forward<Scripted>;

impl ScriptedStore {
    fn new() -> Self {
        let config = Config { store_url: StoreUrl::Memory, ..Config::default() };
        let store = store::open(&config).expect("a store in memory always opens");
        Self(Scripted { store, error: Mutex::default(), deadline: Mutex::default() })
    }

    /// What the next operation fails with.
    pub fn fail_next(&self, error: Error) {
        *self.0.error.lock().unwrap() = Some(error);
    }

    /// The deadline of the last operation.
    pub fn last_deadline(&self) -> Option<Deadline> {
        *self.0.deadline.lock().unwrap()
    }
}

impl Hooks for Scripted {
    fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    fn begin(&self, deadline: Deadline) -> Result<(), Error> {
        *self.deadline.lock().unwrap() = Some(deadline);
        self.error.lock().unwrap().take().map_or(Ok(()), Err)
    }
}
