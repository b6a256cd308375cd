use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body::Body as _;
use http_body_util::BodyExt;
use prost::Message;
use prost_types::{FieldMask, Timestamp};
use tonic::{Code, Status, body::Body, metadata::MetadataMap};
use tonic_health::pb::HealthCheckRequest;
use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_request::MessageRequest};
use tonic_types::{ErrorDetails, StatusExt};
use tower::ServiceExt;

use crate::{
    domain::{Error, LogPosition, Progress, ResumeToken, StoreId, UniqueKey, UserId, Violation},
    proto::{article, user::v1 as pb},
    rpc::{
        call::Inbound,
        methods::{METHODS, MethodId},
        reasons::REASONS,
        status::{self, DOMAIN, HEADER_OVERHEAD_BYTES, MAX_BYTES, header_bytes, new},
    },
    service::{
        error_status,
        response_body::ResponseBody,
        testing::{raw, router},
        violations::MAX_LISTED,
    },
};

/// The bytes of headers or trailers, as RFC 9113 counts them.
fn bytes(headers: &HeaderMap) -> usize {
    let counted = |name: &str, value: &[u8]| name.len() + value.len() + HEADER_OVERHEAD_BYTES;
    counted(":status", b"200")
        + headers.iter().map(|(name, value)| counted(name.as_str(), value.as_bytes())).sum::<usize>()
}

fn alone(status: Status) -> HeaderMap {
    status.into_http::<ResponseBody>().headers().clone()
}

/// Longer than any message that is read, and three times as long once it is encoded.
fn endless() -> String {
    "\u{fc}".repeat(32 * 1_024)
}

/// What tonic makes of a call that it refuses itself, completed.
fn by_tonic(code: Code) -> Status {
    status::with_error_details(&Status::new(code, endless()), usize::MAX)
}

/// Each error that `status` makes, as large as it can be.
fn every() -> Vec<Status> {
    let id = "a".repeat(UserId::MAX_BYTES);
    let last = Some(UserId::parse(&id).unwrap());
    let began = LogPosition::BEGINNING;
    let seen = LogPosition { revision: 1, ..began };
    let token = ResumeToken { store: StoreId([255; 16]), at: Progress::Scan { began, last }, seen };
    // As long as the longest ones that there are.
    let violation = || Violation { field: "update_mask.paths[31]".into(), description: "must be ".repeat(8) };
    let mut all = vec![
        error_status::safe_to_repeat(),
        status::starting(),
        status::message_too_large(usize::MAX),
        status::malformed(&endless()),
        status::several_messages(),
        status::missing_message(),
        status::malformed_json("is no user.v1.BatchGetUsersRequest", usize::MAX, usize::MAX),
        status::malformed_request("connect-protocol-version", "must be 1"),
        status::bad_connect_timeout(),
        status::unknown_encoding(),
        status::bad_timeout(),
        status::bad_content_type(),
        status::unimplemented(),
        status::unknown_health_name(),
        status::import_idle(),
        status::credentials_missing(),
        status::credentials_rejected(),
        status::not_permitted(),
        status::over_quota(),
        error_status::from_error(Error::Invalid { listed: vec![violation(); MAX_LISTED], total: 65_536 }),
        error_status::from_error(Error::RequestIdReused),
        error_status::from_error(Error::RefusedByStore("rule".into())),
        error_status::for_user(Error::NotFound(UniqueKey::Id), &id),
        error_status::for_user(Error::AlreadyExists(UniqueKey::Id), &id),
        error_status::for_user(Error::AlreadyExists(UniqueKey::Email), &id),
        error_status::from_error(Error::EtagMismatch),
        error_status::from_error(Error::OutcomeUnknown),
        error_status::from_error(Error::RefusedByStore("a rule".into())),
    ];
    let ends_of_watches = [
        status::draining(),
        status::connection_aged(),
        status::watcher_too_slow(),
        status::deadline_exceeded(),
        status::request_incomplete(),
        status::answers_unread(),
        status::internal(),
        error_status::from_error(Error::ResumeTokenExpired),
        error_status::from_error(Error::DeadlineExceeded),
        error_status::from_error(Error::Overloaded { retry_delay: Duration::from_secs(10) }),
        error_status::from_error(Error::Unavailable("no room")),
        error_status::from_error(Error::Internal("broken".into())),
    ];
    all.extend(ends_of_watches.iter().map(|end| status::with_resume_token(end, token.encode())));
    all.extend((1..17).map(Code::from_i32).map(by_tonic));
    all
}

#[test]
fn every_error_fits_in_4_kib_of_headers_with_its_details() {
    let mut seen = BTreeSet::new();
    for status in every() {
        let details = status.get_error_details();
        let info = details.error_info().expect("every error has ErrorInfo").clone();
        let size = bytes(&alone(status.clone()));
        assert!(size <= MAX_BYTES, "{} takes up {size} bytes", info.reason);
        assert!(size <= header_bytes(&status), "{} is larger than reckoned", info.reason);
        if info.reason == "INVALID_FIELDS" {
            assert_eq!(details.bad_request().unwrap().field_violations.len(), MAX_LISTED);
        }
        seen.insert(info.reason);
    }
    let made = REASONS.iter().map(|reason| reason.name.to_owned()).collect();
    assert_eq!(seen, made, "an error is missing in `every`, or no longer made");
}

#[test]
fn details_without_bound_leave_the_reason_and_the_message() {
    let mut details = ErrorDetails::with_error_info("REASON", DOMAIN, HashMap::new());
    details.set_resource_info("type", endless(), "", "");
    let status = new(Code::NotFound, "no such thing", details, MetadataMap::new());
    assert!(bytes(&alone(status.clone())) <= MAX_BYTES);
    assert_eq!((status.code(), status.message()), (Code::NotFound, "no such thing"));
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "REASON");
    assert!(details.resource_info().is_none());
}

/// Requests that break all that a request of this method can break.
fn worst(method: MethodId) -> Vec<Vec<u8>> {
    let user = |id: &str| pb::User {
        name: "\u{7}".into(),
        email: endless(),
        age: -1,
        id: id.into(),
        etag: "bad".into(),
        create_time: Some(Timestamp { seconds: i64::MAX, nanos: -1 }),
        update_time: None,
    };
    let (user, bad) = (Some(user(&endless())), String::from("BAD ID"));
    let request_id = bad.clone();
    let asked = |request| ServerReflectionRequest { host: endless(), message_request: Some(request) };
    let update = |paths| pb::UpdateUserRequest {
        user: user.clone(),
        request_id: request_id.clone(),
        update_mask: Some(FieldMask { paths }),
        ..pb::UpdateUserRequest::default()
    };
    let unary: Vec<u8> = match method {
        MethodId::GetUser => {
            let key = Some(pb::get_user_request::Key::Id(endless()));
            pb::GetUserRequest { key }.encode_to_vec()
        }
        MethodId::CreateUser => {
            pb::CreateUserRequest { user, user_id: bad, request_id, validate_only: false }.encode_to_vec()
        }
        MethodId::BatchGetUsers => {
            pb::BatchGetUsersRequest { ids: vec![bad; 1_000], allow_missing: false }.encode_to_vec()
        }
        MethodId::ListUsers => pb::ListUsersRequest { page_size: -1, page_token: endless() }.encode_to_vec(),
        MethodId::UpdateUser => {
            let some = update(vec![endless(); 32]).encode_to_vec();
            return vec![
                some,
                update(vec![bad; 1_000]).encode_to_vec(),
                update(vec!["*".into()]).encode_to_vec(),
            ];
        }
        MethodId::DeleteUser => {
            let (etag, allow_missing) = (endless(), false);
            pb::DeleteUserRequest { id: bad, etag, allow_missing, request_id }.encode_to_vec()
        }
        MethodId::ImportUsers => pb::ImportUsersRequest { user, user_id: bad }.encode_to_vec(),
        MethodId::WatchUsers => {
            pb::WatchUsersRequest { initial_state: true, resume_token: endless() }.encode_to_vec()
        }
        MethodId::ArticleGetUser | MethodId::ArticleCreateUser => {
            let user = article::User { name: "\u{7}".into(), email: endless(), age: -1, id: bad };
            article::CreateUserRequest { user: Some(user) }.encode_to_vec()
        }
        MethodId::HealthCheck | MethodId::HealthList | MethodId::HealthWatch => {
            HealthCheckRequest { service: endless() }.encode_to_vec()
        }
        MethodId::ReflectionV1 | MethodId::ReflectionV1Alpha => {
            return [
                MessageRequest::FileContainingSymbol(endless()),
                MessageRequest::FileByFilename(endless()),
                MessageRequest::AllExtensionNumbersOfType(endless()),
            ]
            .map(|request| asked(request).encode_to_vec())
            .into();
        }
    };
    vec![unary]
}

/// A message that goes as it is, and the same one packed as nobody unpacks it.
fn requests(path: &'static str, message: &[u8]) -> [Request<Inbound<Body>>; 2] {
    let framed = |flag: u8| {
        let mut body = vec![flag];
        body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        body.extend(message);
        raw(path, body)
    };
    let mut packed = framed(1);
    let encoding = HeaderValue::from_str(&"zstd".repeat(4_000)).unwrap();
    packed.headers_mut().insert("grpc-encoding", encoding);
    [framed(0), packed]
}

/// The trailers of an answer, if any come before it waits for more to happen.
async fn trailers(response: Response<ResponseBody>) -> HeaderMap {
    let mut body = response.into_body();
    let mut last = HeaderMap::new();
    while !body.is_end_stream() {
        let frame = tokio::time::timeout(Duration::from_millis(100), body.frame()).await;
        let Ok(Some(Ok(frame))) = frame else { break };
        let frame: http_body::Frame<Bytes> = frame;
        if let Ok(trailers) = frame.into_trailers() {
            last = trailers;
        }
    }
    last
}

#[tokio::test(start_paused = true)]
async fn no_request_of_any_method_gets_an_error_over_4_kib() {
    for method in &METHODS {
        let mut errors = 0;
        for request in worst(method.id).iter().flat_map(|message| requests(method.path, message)) {
            let response = router().0.oneshot(request).await.unwrap();
            assert_eq!(response.headers()[CONTENT_TYPE], "application/grpc");
            let head = response.headers().clone();
            for headers in [head, trailers(response).await] {
                let size = bytes(&headers);
                assert!(size <= MAX_BYTES, "{}: {size} bytes", method.path);
                let Some(status) = Status::from_header_map(&headers) else { continue };
                errors += usize::from(status.code() != Code::Ok);
                let details = status.get_error_details();
                if details.error_info().is_some_and(|info| info.reason == "INVALID_FIELDS") {
                    assert!(details.bad_request().is_some(), "{}: no violations", method.path);
                    assert!(!status.message().ends_with("..."), "{}: {}", method.path, status.message());
                }
            }
        }
        assert!(errors > 0, "no call of {} failed", method.path);
    }
}
