//! Helpers of this module's tests: a router over a small store, called through the
//! generated clients.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use http::{HeaderValue, Request, header::CONTENT_TYPE};
use tonic::{Code, Status, body::Body};
use tonic_types::{ErrorDetails, StatusExt};
use tower::util::MapRequest;

use super::{Health, Router, StoreSlot};
use crate::{
    config::Config,
    domain::{
        Deadline, Effect, Email, Entry, Error, LogHead, LogPosition, Page, PageSize, Revision, Store,
        StoreHealth, StoreId, Timestamp, User, UserId, UserKey, Write, WriteResult, decide,
    },
    feed::Feed,
    rpc::{
        call::{Call, Inbound},
        methods,
    },
};

pub type Transport = MapRequest<Router, fn(Request<Body>) -> Request<Inbound<Body>>>;

/// A router with its store open.
pub fn router() -> (Router, Arc<FakeStore>) {
    router_with(&Config::default())
}

pub fn router_with(config: &Config) -> (Router, Arc<FakeStore>) {
    let store = Arc::new(FakeStore::default());
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

/// Users in memory by the domain's own rules; says what it is told to say.
#[derive(Default)]
pub struct FakeStore(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    users: BTreeMap<String, User>,
    revision: u64,
    done: HashMap<[u8; 32], ([u8; 32], WriteResult)>,
    error: Option<Error>,
    deadline: Option<Deadline>,
}

impl FakeStore {
    /// What the next call fails with.
    pub fn fail_next(&self, error: Error) {
        self.0.lock().unwrap().error = Some(error);
    }

    /// The deadline of the last call.
    pub fn last_deadline(&self) -> Option<Deadline> {
        self.0.lock().unwrap().deadline
    }

    fn begin(&self, deadline: Deadline) -> Result<std::sync::MutexGuard<'_, Inner>, Error> {
        let mut inner = self.0.lock().unwrap();
        inner.deadline = Some(deadline);
        match inner.error.take() {
            Some(error) => Err(error),
            None => Ok(inner),
        }
    }
}

impl Inner {
    fn by_email(&self, email: &Email) -> Option<&User> {
        self.users.values().find(|user| user.fields.email == *email)
    }
}

#[async_trait]
impl Store for FakeStore {
    async fn get(&self, key: &UserKey, deadline: Deadline) -> Result<Option<Arc<User>>, Error> {
        let inner = self.begin(deadline)?;
        let user = match key {
            UserKey::Id(id) => inner.users.get(id.as_str()),
            UserKey::Email(email) => inner.by_email(email),
        };
        Ok(user.cloned().map(Arc::new))
    }

    async fn batch_get(&self, ids: &[UserId], deadline: Deadline) -> Result<Vec<Option<User>>, Error> {
        let inner = self.begin(deadline)?;
        Ok(ids.iter().map(|id| inner.users.get(id.as_str()).cloned()).collect())
    }

    async fn list(&self, after: Option<&UserId>, size: PageSize, deadline: Deadline) -> Result<Page, Error> {
        let inner = self.begin(deadline)?;
        let mut rest =
            inner.users.values().filter(|user| after.is_none_or(|after| user.id > *after)).peekable();
        let users = rest.by_ref().take(size.get()).cloned().collect();
        Ok(Page { users, more: rest.peek().is_some() })
    }

    async fn write(&self, write: Write, deadline: Deadline) -> Result<WriteResult, Error> {
        use crate::domain::Target;
        let mut inner = self.begin(deadline)?;
        if let Some(known) = write.idempotency
            && let Some((payload, written)) = inner.done.get(&known.key)
        {
            return if *payload == known.payload { Ok(written.clone()) } else { Err(Error::RequestIdReused) };
        }
        let current = match write.change.target() {
            Target::Id(id) => inner.users.get(id.as_str()),
            Target::Email(email) => inner.by_email(email),
        };
        let owner = write.change.email().and_then(|email| inner.by_email(email)).map(|user| &user.id);
        let revision = inner.revision + 1;
        let effect = decide(&write.change, current, owner, revision, Timestamp::now())?;
        let user = match &effect {
            Effect::Create(user) | Effect::Update(user) => Some(user.clone()),
            Effect::Nothing => return Ok(WriteResult { user: current.cloned(), revision: 0 }),
            Effect::Delete(_) => None,
        };
        let written = WriteResult { user: user.clone(), revision };
        if !write.validate_only {
            inner.revision = revision;
            match (effect, user) {
                (Effect::Delete(id), _) => drop(inner.users.remove(id.as_str())),
                (_, Some(user)) => drop(inner.users.insert(user.id.as_str().into(), user)),
                _ => {}
            }
            if let Some(known) = write.idempotency {
                inner.done.insert(known.key, (known.payload, written.clone()));
            }
        }
        Ok(written)
    }

    async fn log_head(&self, deadline: Deadline) -> Result<LogHead, Error> {
        let revision = self.begin(deadline)?.revision;
        let newest = LogPosition { revision, ..LogPosition::BEGINNING };
        Ok(LogHead { store: StoreId([1; 16]), newest })
    }

    /// Watches are tested on the real stores.
    async fn changes(&self, _: Revision, _: usize, deadline: Deadline) -> Result<Vec<Entry>, Error> {
        self.begin(deadline).map(|_| Vec::new())
    }

    async fn changed(&self, _: Revision) {
        std::future::pending::<()>().await;
    }

    async fn probe(&self) -> StoreHealth {
        StoreHealth { reads: true, writes: true }
    }

    async fn close(&self) {}
}
