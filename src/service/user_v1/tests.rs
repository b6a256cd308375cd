use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use pb::{get_user_request::Key, user_service_client::UserServiceClient};
use prost_types::FieldMask;
use tonic::{Code, Request, Status};

use super::pb;
use crate::{
    domain::{Deadline, Error},
    rpc::call::Call,
    service::testing::{ScriptedStore, Transport, bad_fields, details, router, transport},
};

const REQUEST_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

type Client = UserServiceClient<Transport>;

fn client() -> (Client, Arc<ScriptedStore>) {
    let (router, store) = router();
    (Client::new(transport(router)), store)
}

fn user(name: &str, email: &str, age: i32) -> pb::User {
    pb::User {
        name: name.into(),
        email: email.into(),
        age,
        id: String::new(),
        etag: String::new(),
        create_time: None,
        update_time: None,
    }
}

fn create_request(id: &str) -> pb::CreateUserRequest {
    pb::CreateUserRequest {
        user: Some(user("Ada", &format!("{id}@example.com"), 36)),
        user_id: id.into(),
        ..pb::CreateUserRequest::default()
    }
}

async fn create(client: &mut Client, id: &str) -> pb::User {
    client.create_user(create_request(id)).await.unwrap().into_inner().user.unwrap()
}

async fn get(client: &mut Client, id: &str) -> Result<pb::User, Status> {
    let request = pb::GetUserRequest { key: Some(Key::Id(id.into())) };
    Ok(client.get_user(request).await?.into_inner().user.unwrap())
}

fn update_request(user: pb::User, paths: &[&str]) -> pb::UpdateUserRequest {
    let paths = paths.iter().map(|&path| path.into()).collect();
    pb::UpdateUserRequest {
        user: Some(user),
        update_mask: Some(FieldMask { paths }),
        ..pb::UpdateUserRequest::default()
    }
}

fn delete_request(id: &str) -> pb::DeleteUserRequest {
    pb::DeleteUserRequest { id: id.into(), ..pb::DeleteUserRequest::default() }
}

#[tokio::test]
async fn a_created_user_is_found_by_id_and_by_any_spelling_of_its_email() {
    let (mut client, _) = client();
    let request = pb::CreateUserRequest {
        user: Some(user(" Ada ", " Ada@Example.COM ", 36)),
        ..pb::CreateUserRequest::default()
    };
    let created = client.create_user(request).await.unwrap().into_inner().user.unwrap();
    assert_eq!((created.name.as_str(), created.email.as_str(), created.age), ("Ada", "ada@example.com", 36));
    let version = uuid::Uuid::try_parse(&created.id).unwrap().get_version_num();
    assert_eq!(version, 7);
    assert!(created.etag.starts_with('"') && created.etag.ends_with('"'));
    assert!(created.create_time.is_some());
    assert_eq!(created.create_time, created.update_time);

    assert_eq!(get(&mut client, &created.id).await.unwrap(), created);
    let by_email = pb::GetUserRequest { key: Some(Key::Email("ADA@example.com".into())) };
    assert_eq!(client.get_user(by_email).await.unwrap().into_inner().user, Some(created));
}

#[tokio::test]
async fn every_bad_field_is_named_at_once() {
    let (mut client, _) = client();
    let request = pb::CreateUserRequest {
        user: Some(user(" ", "nobody", 151)),
        user_id: "NOT AN ID".into(),
        request_id: "1".into(),
        validate_only: false,
    };
    let status = client.create_user(request).await.unwrap_err();
    assert_eq!(bad_fields(&status), ["user_id", "request_id", "user.name", "user.email", "user.age"]);
    assert!(!status.message().contains("nobody") && !status.message().contains("NOT AN ID"));

    let status = client.create_user(pb::CreateUserRequest::default()).await.unwrap_err();
    assert_eq!(bad_fields(&status), ["user"]);

    let bad = pb::User { etag: "1".into(), ..user("a\u{0}", "nobody", -1) };
    let request = pb::UpdateUserRequest { request_id: "1".into(), ..update_request(bad, &["*", "nickname"]) };
    let status = client.update_user(request).await.unwrap_err();
    assert_eq!(
        bad_fields(&status),
        ["request_id", "update_mask.paths[1]", "user.id", "user.etag", "user.name", "user.email", "user.age"]
    );
    assert!(!String::from_utf8_lossy(status.details()).contains("nickname"));

    let request =
        pb::DeleteUserRequest { etag: "1".into(), request_id: "1".into(), ..delete_request("NOT AN ID") };
    let status = client.delete_user(request).await.unwrap_err();
    assert_eq!(bad_fields(&status), ["id", "etag", "request_id"]);

    let status = client.get_user(pb::GetUserRequest { key: None }).await.unwrap_err();
    assert_eq!(bad_fields(&status), ["id"]);
    let request = pb::GetUserRequest { key: Some(Key::Email("nobody".into())) };
    assert_eq!(bad_fields(&client.get_user(request).await.unwrap_err()), ["email"]);

    let request = pb::ListUsersRequest { page_size: -1, page_token: "x".into() };
    assert_eq!(bad_fields(&client.list_users(request).await.unwrap_err()), ["page_size", "page_token"]);
}

#[tokio::test]
async fn a_taken_id_or_email_is_named_by_its_field() {
    let (mut client, _) = client();
    create(&mut client, "ada").await;
    let taken = |status: &Status, field: &str, name: &str| {
        let details = details(status, Code::AlreadyExists, "USER_ALREADY_EXISTS");
        assert_eq!(details.error_info().unwrap().metadata["field"], field);
        let resource = details.resource_info().unwrap();
        assert_eq!(
            (resource.resource_type.as_str(), resource.resource_name.as_str()),
            ("user.v1.User", name)
        );
        assert!(!String::from_utf8_lossy(status.details()).contains('@'));
    };
    taken(&client.create_user(create_request("ada")).await.unwrap_err(), "id", "ada");
    let request = pb::CreateUserRequest { user_id: "bob".into(), ..create_request("ada") };
    taken(&client.create_user(request).await.unwrap_err(), "email", "email");
    create(&mut client, "bob").await;
    let bob = pb::User { id: "bob".into(), ..user("", "ada@example.com", 0) };
    taken(&client.update_user(update_request(bob, &[])).await.unwrap_err(), "email", "email");
}

#[tokio::test]
async fn a_missing_user_is_not_found_by_name() {
    let (mut client, _) = client();
    let missing = |status: &Status, name: &str| {
        let details = details(status, Code::NotFound, "USER_NOT_FOUND");
        let resource = details.resource_info().unwrap();
        assert_eq!(
            (resource.resource_type.as_str(), resource.resource_name.as_str()),
            ("user.v1.User", name)
        );
    };
    missing(&get(&mut client, "nobody").await.unwrap_err(), "nobody");
    let by_email = pb::GetUserRequest { key: Some(Key::Email("nobody@example.com".into())) };
    missing(&client.get_user(by_email).await.unwrap_err(), "email");
    let nobody = pb::User { id: "nobody".into(), ..user("Ada", "", 0) };
    missing(&client.update_user(update_request(nobody, &[])).await.unwrap_err(), "nobody");
    missing(&client.delete_user(delete_request("nobody")).await.unwrap_err(), "nobody");
    let allowed = pb::DeleteUserRequest { allow_missing: true, ..delete_request("nobody") };
    client.delete_user(allowed).await.unwrap();
}

#[tokio::test]
async fn a_batch_is_answered_position_by_position() {
    let (mut client, _) = client();
    let (ada, bob) = (create(&mut client, "ada").await, create(&mut client, "bob").await);
    let ids = |ids: &[&str]| ids.iter().map(|&id| id.into()).collect::<Vec<String>>();
    let batch = |ids, allow_missing| pb::BatchGetUsersRequest { ids, allow_missing };

    let answer =
        client.batch_get_users(batch(ids(&["bob", "ada", "bob"]), false)).await.unwrap().into_inner();
    assert_eq!(answer.users, [bob.clone(), ada, bob.clone()]);
    assert!(answer.missing_ids.is_empty());

    let some = ids(&["x", "bob", "y", "x"]);
    let status = client.batch_get_users(batch(some.clone(), false)).await.unwrap_err();
    let not_found = details(&status, Code::NotFound, "USER_NOT_FOUND");
    assert_eq!(not_found.resource_info().unwrap().resource_name, "x");
    let answer = client.batch_get_users(batch(some, true)).await.unwrap().into_inner();
    assert_eq!((answer.users, answer.missing_ids), (vec![bob], ids(&["x", "y", "x"])));
}

#[tokio::test]
async fn a_batch_has_1_to_1000_good_ids() {
    let (mut client, _) = client();
    let batch = |ids| pb::BatchGetUsersRequest { ids, allow_missing: true };
    let full = client.batch_get_users(batch(vec!["a".into(); 1_000])).await.unwrap();
    assert_eq!(full.into_inner().missing_ids.len(), 1_000);
    for bad in [0, 1_001] {
        let status = client.batch_get_users(batch(vec!["a".into(); bad])).await.unwrap_err();
        assert_eq!(bad_fields(&status), ["ids"]);
    }
    let status = client.batch_get_users(batch(vec!["a".into(), "B".into(), "c".into(), String::new()])).await;
    assert_eq!(bad_fields(&status.unwrap_err()), ["ids[1]", "ids[3]"]);
    // However many are bad, the status still fits the headers that clients take.
    let status = client.batch_get_users(batch(vec!["B".into(); 1_000])).await.unwrap_err();
    assert_eq!(bad_fields(&status).len(), 16);
    assert!(status.message().contains("more"));
    assert!(status.details().len() + status.message().len() < 5_000);
}

#[tokio::test]
async fn pages_neither_repeat_nor_skip_while_users_come_and_go() {
    let (mut client, _) = client();
    for id in ["b", "d", "f", "h"] {
        create(&mut client, id).await;
    }
    let page = |page_size, page_token| pb::ListUsersRequest { page_size, page_token };
    let ids = |users: &[pb::User]| users.iter().map(|user| user.id.clone()).collect::<Vec<_>>();

    let first = client.list_users(page(2, String::new())).await.unwrap().into_inner();
    assert_eq!(ids(&first.users), ["b", "d"]);
    // Before and after the cut, and the very user that the token stands on.
    create(&mut client, "a").await;
    create(&mut client, "e").await;
    client.delete_user(delete_request("d")).await.unwrap();
    // Another page size with the same token is fine.
    let rest = client.list_users(page(1_001, first.next_page_token)).await.unwrap().into_inner();
    assert_eq!(ids(&rest.users), ["e", "f", "h"]);
    assert_eq!(rest.next_page_token, "");
    // A page that holds exactly the rest is the last one.
    let all = client.list_users(page(5, String::new())).await.unwrap().into_inner();
    assert_eq!((all.users.len(), all.next_page_token.as_str()), (5, ""));
}

#[tokio::test]
async fn an_update_writes_what_the_mask_says() {
    let (mut client, _) = client();
    let before = create(&mut client, "ada").await;
    let with = |name: &str, email: &str, age| pb::User { id: "ada".into(), ..user(name, email, age) };
    let mut now = before.clone();
    for (given, paths, name, email, age) in [
        // Named fields only, an age of 0 among them.
        (with("Bob", "new@example.com", 0), vec!["age"], "Ada", "ada@example.com", 0),
        // No mask: what is populated.
        (with("Eve", "", 0), vec![], "Eve", "ada@example.com", 0),
        (with("", " New@example.com", 7), vec![], "Eve", "new@example.com", 7),
        (with("Zoe", "", 0), vec![], "Zoe", "new@example.com", 7),
        // What callers cannot write is ignored.
        (
            with("Ada", "x@example.com", 9),
            vec!["id", "etag", "create_time", "update_time", "name"],
            "Ada",
            "new@example.com",
            7,
        ),
        (with("All", "all@example.com", 0), vec!["*"], "All", "all@example.com", 0),
    ] {
        let updated =
            client.update_user(update_request(given, &paths)).await.unwrap().into_inner().user.unwrap();
        assert_eq!(
            (updated.name.as_str(), updated.email.as_str(), updated.age),
            (name, email, age),
            "{paths:?}"
        );
        assert_eq!((&updated.id, &updated.create_time), (&before.id, &before.create_time));
        assert_ne!(updated.etag, now.etag, "every write has an etag of its own");
        now = updated;
    }
    let status = client.update_user(update_request(with("Ada", "", 0), &["name"; 33])).await.unwrap_err();
    assert_eq!(bad_fields(&status), ["update_mask"]);
    // All fields means all: none may be left out.
    let status = client.update_user(update_request(with("", "", 0), &["*"])).await.unwrap_err();
    assert_eq!(bad_fields(&status), ["user.name", "user.email"]);
    assert_eq!(get(&mut client, "ada").await.unwrap(), now);
}

#[tokio::test]
async fn a_stale_etag_aborts_an_update_and_a_delete() {
    let (mut client, _) = client();
    let first = create(&mut client, "ada").await;
    let rename = |etag: &str| {
        update_request(pb::User { id: "ada".into(), etag: etag.into(), ..user("Eve", "", 0) }, &["name"])
    };
    let second = client.update_user(rename(&first.etag)).await.unwrap().into_inner().user.unwrap();
    let stale = client.update_user(rename(&first.etag)).await.unwrap_err();
    details(&stale, Code::Aborted, "ETAG_MISMATCH");
    let delete = |etag: &str| pb::DeleteUserRequest { etag: etag.into(), ..delete_request("ada") };
    let stale = client.delete_user(delete(&first.etag)).await.unwrap_err();
    details(&stale, Code::Aborted, "ETAG_MISMATCH");
    client.delete_user(delete(&second.etag)).await.unwrap();
}

#[tokio::test]
async fn a_repeated_request_is_answered_and_not_applied_again() {
    let (mut client, _) = client();
    // The server's own id is no part of what was asked for.
    let request = pb::CreateUserRequest {
        user_id: String::new(),
        request_id: REQUEST_ID.into(),
        ..create_request("ada")
    };
    let first = client.create_user(request.clone()).await.unwrap().into_inner();
    assert_eq!(client.create_user(request.clone()).await.unwrap().into_inner(), first);
    let id = first.user.unwrap().id;

    let other = pb::CreateUserRequest { user_id: "other".into(), ..request };
    let status = client.create_user(other).await.unwrap_err();
    let reused = details(&status, Code::InvalidArgument, "REQUEST_ID_REUSED");
    assert_eq!(reused.bad_request().unwrap().field_violations[0].field, "request_id");

    // The same id is new to another method, and a repeat is known before its etag.
    let etag = get(&mut client, &id).await.unwrap().etag;
    let rename = pb::UpdateUserRequest {
        request_id: REQUEST_ID.into(),
        ..update_request(pb::User { id: id.clone(), etag, ..user("Eve", "", 0) }, &["name"])
    };
    let renamed = client.update_user(rename.clone()).await.unwrap().into_inner();
    assert_eq!(client.update_user(rename).await.unwrap().into_inner(), renamed);

    let delete = pb::DeleteUserRequest { request_id: REQUEST_ID.into(), ..delete_request(&id) };
    client.delete_user(delete.clone()).await.unwrap();
    client.delete_user(delete).await.unwrap();
}

#[tokio::test]
async fn validate_only_says_what_would_be_and_writes_nothing() {
    let (mut client, _) = client();
    let dry = pb::CreateUserRequest { validate_only: true, ..create_request("ada") };
    let would = client.create_user(dry.clone()).await.unwrap().into_inner().user.unwrap();
    assert_eq!((would.id.as_str(), would.email.as_str()), ("ada", "ada@example.com"));
    assert_eq!(get(&mut client, "ada").await.unwrap_err().code(), Code::NotFound);

    let ada = create(&mut client, "ada").await;
    details(&client.create_user(dry).await.unwrap_err(), Code::AlreadyExists, "USER_ALREADY_EXISTS");
    let dry = pb::UpdateUserRequest {
        validate_only: true,
        ..update_request(pb::User { id: "ada".into(), ..user("Eve", "", 0) }, &[])
    };
    let would = client.update_user(dry).await.unwrap().into_inner().user.unwrap();
    assert_eq!(would.name, "Eve");
    assert_eq!(get(&mut client, "ada").await.unwrap(), ada);
}

#[tokio::test]
async fn what_the_store_says_is_told_apart() {
    let (mut client, store) = client();
    for (error, code, reason) in [
        (Error::Overloaded { retry_delay: Duration::from_millis(20) }, Code::Unavailable, "OVERLOADED"),
        (Error::Unavailable("disk full at /secret/path"), Code::Unavailable, "STORE_UNAVAILABLE"),
        (Error::DeadlineExceeded, Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        (Error::OutcomeUnknown, Code::Unknown, "OUTCOME_UNKNOWN"),
        (Error::Internal("row of /secret/path".into()), Code::Internal, "INTERNAL"),
    ] {
        store.fail_next(error);
        let status = client.create_user(create_request("ada")).await.unwrap_err();
        details(&status, code, reason);
        assert!(!format!("{status:?}").contains("secret"));
        assert!(!String::from_utf8_lossy(status.details()).contains("secret"));
    }
    // With a request id an unknown outcome is safe to repeat.
    store.fail_next(Error::OutcomeUnknown);
    let named = pb::CreateUserRequest { request_id: REQUEST_ID.into(), ..create_request("ada") };
    let status = client.create_user(named).await.unwrap_err();
    details(&status, Code::Unavailable, "OUTCOME_UNKNOWN");
}

#[tokio::test]
async fn the_store_is_given_the_deadline_of_the_call() {
    let (mut client, store) = client();
    get(&mut client, "ada").await.unwrap_err();
    assert_eq!(store.last_deadline(), Some(Deadline::NONE));
    let deadline = Deadline::at(Instant::now() + Duration::from_mins(1));
    let mut request = Request::new(create_request("ada"));
    request.extensions_mut().insert(Call { deadline, ..Call::default() });
    client.create_user(request).await.unwrap();
    assert_eq!(store.last_deadline(), Some(deadline));
}
