//! A good request of each method.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use prost::Message;
use user_service::{
    proto::{
        article,
        user::v1::{self as pb, get_user_request::Key as By},
    },
    rpc::methods::Method,
};

fn email(id: &str) -> String {
    format!("{id}@example.test")
}

/// A good request of a method about the record with this id.
pub fn request(method: &Method, id: &str, by_email: bool) -> Vec<u8> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let new = format!("new-{}", NUMBER.fetch_add(1, Relaxed));
    let key = if by_email { By::Email(email(id)) } else { By::Id(id.into()) };
    let user = |id: &str| pb::User {
        id: id.into(),
        name: "Some Body".into(),
        email: email(id),
        age: 30,
        ..pb::User::default()
    };
    let article_user = |id: &str| {
        let id_or_none = if by_email { String::new() } else { id.into() };
        Some(article::User { id: id_or_none, name: "Some Body".into(), email: email(id), age: 30 })
    };
    match method.full_name() {
        "user.v1.UserService/GetUser" => pb::GetUserRequest { key: Some(key) }.encode_to_vec(),
        "user.v1.UserService/CreateUser" => {
            let user = Some(user(&new));
            pb::CreateUserRequest { user_id: new, user, ..Default::default() }.encode_to_vec()
        }
        "user.v1.UserService/BatchGetUsers" => {
            pb::BatchGetUsersRequest { ids: vec![id.into()], ..Default::default() }.encode_to_vec()
        }
        "user.v1.UserService/ListUsers" => pb::ListUsersRequest::default().encode_to_vec(),
        "user.v1.UserService/UpdateUser" => {
            pb::UpdateUserRequest { user: Some(user(id)), ..Default::default() }.encode_to_vec()
        }
        "user.v1.UserService/DeleteUser" => {
            pb::DeleteUserRequest { id: id.into(), ..Default::default() }.encode_to_vec()
        }
        "user.v1.UserService/ImportUsers" => {
            let user = Some(user(&new));
            pb::ImportUsersRequest { user_id: new, user }.encode_to_vec()
        }
        "user.v1.UserService/WatchUsers" => {
            pb::WatchUsersRequest { initial_state: true, ..Default::default() }.encode_to_vec()
        }
        "UserService/GetUser" => article::UserRequest { user: article_user(id) }.encode_to_vec(),
        "UserService/CreateUser" => article::CreateUserRequest { user: article_user(id) }.encode_to_vec(),
        // Of all names together.
        name if name.starts_with("grpc.health.v1.Health/") => Vec::new(),
        // The question for the list of services, which is the same in both versions.
        name if name.ends_with("ServerReflectionInfo") => vec![0x3a, 0x00],
        other => panic!("make a request for {other} here"),
    }
}
