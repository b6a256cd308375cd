use std::sync::Arc;

use tonic::Code;

use super::pb::{self, user_service_client::UserServiceClient};
use crate::{
    config::Config,
    domain::Error,
    service::testing::{ScriptedStore, Transport, bad_fields, details, router, router_with, transport},
};

type Client = UserServiceClient<Transport>;

fn client() -> (Client, Arc<ScriptedStore>) {
    let (router, store) = router();
    (Client::new(transport(router)), store)
}

fn user(id: &str, name: &str, email: &str, age: i32) -> pb::User {
    pb::User { name: name.into(), email: email.into(), age, id: id.into() }
}

async fn get(client: &mut Client, id: &str, email: &str) -> pb::UserResponse {
    let user = Some(user(id, "", email, 0));
    client.get_user(pb::UserRequest { user }).await.unwrap().into_inner()
}

async fn put(client: &mut Client, user: pb::User) -> Result<pb::User, tonic::Status> {
    let request = pb::CreateUserRequest { user: Some(user) };
    Ok(client.create_user(request).await?.into_inner().user.unwrap())
}

#[tokio::test]
async fn the_articles_client_runs_twice() {
    let (mut client, _) = client();
    let ada = user("", "Ada", "ada@example.com", 36);
    let before = get(&mut client, "", "ada@example.com").await;
    assert_eq!((before.user, before.error.as_str()), (None, "User not found"));
    let first = put(&mut client, ada.clone()).await.unwrap();
    for _ in 0..2 {
        let found = get(&mut client, "", "ada@example.com").await;
        assert_eq!((found.user, found.error.as_str()), (Some(first.clone()), ""));
        assert_eq!(put(&mut client, ada.clone()).await.unwrap(), first, "overwritten by its e-mail");
    }
}

#[tokio::test]
async fn looking_up_validates_nothing() {
    let (mut client, _) = client();
    let ada = put(&mut client, user("ada", "Ada", "ada@example.com", 36)).await.unwrap();
    for (id, email) in [("", ""), ("NOT AN ID", ""), ("", "not an email"), ("nobody", "ada@example.com")] {
        let answer = get(&mut client, id, email).await;
        assert_eq!((answer.user, answer.error.as_str()), (None, "User not found"), "{id:?} {email:?}");
    }
    let answer = client.get_user(pb::UserRequest { user: None }).await.unwrap().into_inner();
    assert_eq!(answer.error, "User not found");
    // The id counts where both are given.
    assert_eq!(get(&mut client, "ada", "nobody@example.com").await.user, Some(ada.clone()));
    assert_eq!(get(&mut client, "", " ADA@example.com").await.user, Some(ada));
}

#[tokio::test]
async fn creating_puts() {
    let (mut client, _) = client();
    // Unknown id: created under it.
    let ada = put(&mut client, user("ada", "Ada", "ada@example.com", 36)).await.unwrap();
    assert_eq!(ada, user("ada", "Ada", "ada@example.com", 36));
    // Known id: overwritten, its address free to move.
    let moved = put(&mut client, user("ada", "Countess", "countess@example.com", 0)).await.unwrap();
    assert_eq!(moved, user("ada", "Countess", "countess@example.com", 0));
    assert_eq!(get(&mut client, "", "ada@example.com").await.user, None);
    // No id: overwritten by its e-mail address.
    let same = put(&mut client, user("", "Ada L", "countess@example.com", 1)).await.unwrap();
    assert_eq!(same, user("ada", "Ada L", "countess@example.com", 1));
    // No id and a new address: a new user.
    let bob = put(&mut client, user("", "Bob", "bob@example.com", 2)).await.unwrap();
    assert_ne!(bob.id, "ada");
    // Somebody else's address.
    for id in ["ada", "new"] {
        let status = put(&mut client, user(id, "Eve", "bob@example.com", 3)).await.unwrap_err();
        let details = details(&status, Code::AlreadyExists, "USER_ALREADY_EXISTS");
        assert_eq!(details.error_info().unwrap().metadata["field"], "email");
    }
}

#[tokio::test]
async fn a_bad_user_is_refused_field_by_field() {
    let (mut client, _) = client();
    let status = put(&mut client, user("BAD ID", "", "x", -1)).await.unwrap_err();
    assert_eq!(bad_fields(&status), ["user.id", "user.name", "user.email", "user.age"]);
    let status = put(&mut client, user("ada", "", "", 0)).await.unwrap_err();
    assert_eq!(bad_fields(&status), ["user.name", "user.email"]);
    let status = client.create_user(pb::CreateUserRequest { user: None }).await.unwrap_err();
    assert_eq!(bad_fields(&status), ["user"]);
}

#[tokio::test]
async fn a_store_that_fails_is_no_missing_user() {
    let (mut client, store) = client();
    store.fail_next(Error::Unavailable("closed"));
    let request = pb::UserRequest { user: Some(user("ada", "", "", 0)) };
    let status = client.get_user(request).await.unwrap_err();
    details(&status, Code::Unavailable, "STORE_UNAVAILABLE");
}

#[tokio::test]
async fn it_can_be_switched_off() {
    let (router, _) = router_with(&Config { article_api: false, ..Config::default() });
    let mut client = Client::new(transport(router));
    let status = put(&mut client, user("", "Ada", "ada@example.com", 36)).await.unwrap_err();
    details(&status, Code::Unimplemented, "UNKNOWN_METHOD");
}
