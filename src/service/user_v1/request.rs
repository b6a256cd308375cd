//! Reads requests: every rule of a request is checked before any of it is used.

use super::fields::{self, Mask};
use crate::{
    domain::{
        Change, Email, Error, Etag, MAX_PAGE_SIZE, PageSize, PageToken, RequestId, ResumeToken, Timestamp,
        UserId, UserKey,
    },
    proto::user::v1 as pb,
    service::violations::Violations,
};

pub fn create(request: &pb::CreateUserRequest) -> Result<(Change, Option<RequestId>), Error> {
    let mut violations = Violations::default();
    let id = violations.optional("user_id", &request.user_id, UserId::parse);
    let request_id = violations.optional("request_id", &request.request_id, RequestId::parse);
    let user = violations.required("user", request.user.as_ref());
    let fields = user.and_then(|user| fields::parse(&mut violations, user));
    match fields {
        Some(fields) if violations.is_empty() => {
            Ok((Change::Create { id: id.unwrap_or_else(UserId::generate), fields }, request_id))
        }
        _ => Err(violations.into_error()),
    }
}

pub fn import(request: &pb::ImportUsersRequest) -> Result<Change, Error> {
    let mut violations = Violations::default();
    let id = violations.optional("user_id", &request.user_id, UserId::parse);
    let Some(user) = violations.required("user", request.user.as_ref()) else {
        return Err(violations.into_error());
    };
    let fields = fields::parse(&mut violations, user);
    let create_time =
        user.create_time.as_ref().and_then(|time| violations.check("user.create_time", parse_time(time)));
    match fields {
        Some(fields) if violations.is_empty() => {
            Ok(Change::Import { id, new_id: UserId::generate(), fields, create_time })
        }
        _ => Err(violations.into_error()),
    }
}

/// What protobuf takes for a time, to the microsecond.
fn parse_time(time: &prost_types::Timestamp) -> Result<Timestamp, &'static str> {
    if Timestamp::PROTOBUF_SECONDS.contains(&time.seconds) && (0..1_000_000_000).contains(&time.nanos) {
        Ok(Timestamp::from_micros(time.seconds * 1_000_000 + i64::from(time.nanos / 1_000)))
    } else {
        Err("must be of the years 1 to 9999, with 0 to 999,999,999 nanoseconds")
    }
}

pub fn key(request: &pb::GetUserRequest) -> Result<UserKey, Error> {
    use pb::get_user_request::Key;
    let mut violations = Violations::default();
    let key = match &request.key {
        Some(Key::Id(id)) => violations.check("id", UserId::parse(id)).map(UserKey::Id),
        Some(Key::Email(email)) => violations.check("email", Email::parse(email)).map(UserKey::Email),
        None => violations.check("id", Err("must be given, or else email")),
    };
    key.ok_or_else(|| violations.into_error())
}

pub fn ids(request: &pb::BatchGetUsersRequest) -> Result<Vec<UserId>, Error> {
    let mut violations = Violations::default();
    if !(1..=MAX_PAGE_SIZE).contains(&request.ids.len()) {
        violations.add("ids", format!("must be 1 to {MAX_PAGE_SIZE} ids"));
        return Err(violations.into_error());
    }
    let mut ids = Vec::with_capacity(request.ids.len());
    for (i, id) in request.ids.iter().enumerate() {
        match UserId::parse(id) {
            Ok(id) => ids.push(id),
            Err(description) => violations.add(format!("ids[{i}]"), description),
        }
    }
    if violations.is_empty() { Ok(ids) } else { Err(violations.into_error()) }
}

pub fn page(request: &pb::ListUsersRequest) -> Result<(PageSize, Option<PageToken>), Error> {
    let mut violations = Violations::default();
    let size = violations.check("page_size", PageSize::parse(request.page_size));
    let token = violations.optional("page_token", &request.page_token, PageToken::parse);
    match size {
        Some(size) if violations.is_empty() => Ok((size, token)),
        _ => Err(violations.into_error()),
    }
}

pub fn update(request: &pb::UpdateUserRequest) -> Result<(Change, Option<RequestId>), Error> {
    let mut violations = Violations::default();
    let request_id = violations.optional("request_id", &request.request_id, RequestId::parse);
    let mask = Mask::parse(&mut violations, request);
    let Some(user) = violations.required("user", request.user.as_ref()) else {
        return Err(violations.into_error());
    };
    let id = violations.check("user.id", UserId::parse(&user.id));
    let etag = violations.optional("user.etag", &user.etag, Etag::parse);
    let patch = mask.patch(&mut violations, user);
    match id {
        Some(id) if violations.is_empty() => Ok((Change::Update { id, patch, etag }, request_id)),
        _ => Err(violations.into_error()),
    }
}

pub fn delete(request: &pb::DeleteUserRequest) -> Result<(Change, Option<RequestId>), Error> {
    let mut violations = Violations::default();
    let id = violations.check("id", UserId::parse(&request.id));
    let etag = violations.optional("etag", &request.etag, Etag::parse);
    let request_id = violations.optional("request_id", &request.request_id, RequestId::parse);
    match id {
        Some(id) if violations.is_empty() => {
            Ok((Change::Delete { id, etag, allow_missing: request.allow_missing }, request_id))
        }
        _ => Err(violations.into_error()),
    }
}

pub fn resume_token(request: &pb::WatchUsersRequest) -> Result<Option<ResumeToken>, Error> {
    let mut violations = Violations::default();
    let token = violations.optional("resume_token", &request.resume_token, ResumeToken::parse);
    if violations.is_empty() { Ok(token) } else { Err(violations.into_error()) }
}
