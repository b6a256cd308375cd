//! The calls that are made, as bytes on the wire. User number n has the id
//! `u-n` and an e-mail address of its own, so a reader needs no list of ids.

use std::cell::Cell;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use rand::{Rng, SeedableRng, rngs::SmallRng};

use crate::{
    Result, Which,
    connection::Reply,
    messages as article,
    messages::user::v1::{self, get_user_request::Key},
};

/// Users in a `BatchGetUsers`.
const BATCH: usize = 100;

/// Users in a page of `ListUsers`.
const PAGE: i32 = 1_000;

#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Kind {
    /// `user.v1.UserService/GetUser`
    Get,
    /// The same by an address
    GetByEmail,
    /// The same of a user that is not there: `NOT_FOUND`
    Absent,
    /// `user.v1.UserService/BatchGetUsers` of 100
    Batch,
    /// `user.v1.UserService/ListUsers`, the first 1,000
    Page,
    /// `user.v1.UserService/CreateUser`
    Create,
    /// The same with a bad name, address and age: `INVALID_ARGUMENT`
    Invalid,
    /// `user.v1.UserService/UpdateUser`
    Update,
    /// `user.v1.UserService/DeleteUser`, from the first user on
    Delete,
    /// The article's `UserService/GetUser`
    ArticleGet,
    /// The article's `UserService/CreateUser`
    ArticleCreate,
}

/// Makes one request after the other.
pub struct Calls {
    which: Which,
    next: Cell<u64>,
    random: std::cell::RefCell<SmallRng>,
}

impl Calls {
    pub fn new(which: Which) -> Self {
        let random = SmallRng::seed_from_u64(which.first + which.users);
        Self { next: Cell::new(which.first), random: random.into(), which }
    }

    pub fn path(&self) -> &'static str {
        match self.which.kind {
            Kind::Get | Kind::GetByEmail | Kind::Absent => "/user.v1.UserService/GetUser",
            Kind::Batch => "/user.v1.UserService/BatchGetUsers",
            Kind::Page => "/user.v1.UserService/ListUsers",
            Kind::Create | Kind::Invalid => "/user.v1.UserService/CreateUser",
            Kind::Update => "/user.v1.UserService/UpdateUser",
            Kind::Delete => "/user.v1.UserService/DeleteUser",
            Kind::ArticleGet => "/UserService/GetUser",
            Kind::ArticleCreate => "/UserService/CreateUser",
        }
    }

    /// The next request, framed.
    pub fn request(&self) -> Bytes {
        match self.which.kind {
            Kind::Get => get(Key::Id(id(self.any()))),
            Kind::GetByEmail => get(Key::Email(email(self.any()))),
            Kind::Absent => get(Key::Id(format!("absent-{}", self.fresh()))),
            Kind::Batch => {
                let ids = (0..BATCH).map(|_| id(self.any())).collect();
                frame(&v1::BatchGetUsersRequest { ids, allow_missing: false })
            }
            Kind::Page => frame(&v1::ListUsersRequest { page_size: PAGE, ..v1::ListUsersRequest::default() }),
            Kind::Create => {
                let n = self.fresh();
                let user = v1::User { name: name(n), email: email(n), age: age(n), ..v1::User::default() };
                create(user, id(n))
            }
            Kind::Invalid => {
                let user = v1::User { email: "no address".into(), age: -1, ..v1::User::default() };
                create(user, id(self.fresh()))
            }
            Kind::Update => {
                let user = v1::User { id: id(self.any()), age: age(self.fresh()), ..v1::User::default() };
                let update_mask = Some(prost_types::FieldMask { paths: vec!["age".into()] });
                let user = Some(user);
                frame(&v1::UpdateUserRequest { user, update_mask, ..v1::UpdateUserRequest::default() })
            }
            Kind::Delete => {
                frame(&v1::DeleteUserRequest { id: id(self.fresh()), ..v1::DeleteUserRequest::default() })
            }
            Kind::ArticleGet => {
                let user = article::User { id: id(self.any()), ..article::User::default() };
                frame(&article::UserRequest { user: Some(user) })
            }
            Kind::ArticleCreate => {
                let n = self.fresh();
                let user = article::User { name: name(n), email: email(n), age: age(n), id: id(n) };
                frame(&article::CreateUserRequest { user: Some(user) })
            }
        }
    }

    /// The next request in JSON, of those that are called in it.
    pub fn json(&self) -> Result<String> {
        match self.which.kind {
            Kind::Get => Ok(format!(r#"{{"id": "{}"}}"#, id(self.any()))),
            Kind::Absent => Ok(format!(r#"{{"id": "absent-{}"}}"#, self.fresh())),
            Kind::Create => {
                let n = self.fresh();
                let (name, email, age, id) = (name(n), email(n), age(n), id(n));
                let user = format!(r#"{{"name": "{name}", "email": "{email}", "age": {age}}}"#);
                Ok(format!(r#"{{"user": {user}, "userId": "{id}"}}"#))
            }
            _ => Err("only get, absent and create are called in JSON".into()),
        }
    }

    /// Whether each answer has a user in it.
    pub fn brings_users(&self) -> bool {
        !matches!(self.which.kind, Kind::Absent | Kind::Invalid | Kind::Delete)
    }

    /// Whether an OK really brought what was asked for.
    pub fn is_right(&self, reply: &Reply) -> bool {
        let message = reply.message();
        match self.which.kind {
            Kind::Batch => {
                v1::BatchGetUsersResponse::decode(message).is_ok_and(|answer| answer.users.len() == BATCH)
            }
            Kind::Absent | Kind::Invalid => false,
            Kind::Delete => message.is_empty(),
            // Every other answer starts with the user: field 1, not empty.
            _ => message.len() > 2 && message[0] == 0x0a && message[1] > 0,
        }
    }

    fn any(&self) -> u64 {
        self.random.borrow_mut().random_range(0..self.which.users)
    }

    fn fresh(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
    }
}

fn get(key: Key) -> Bytes {
    frame(&v1::GetUserRequest { key: Some(key) })
}

fn create(user: v1::User, user_id: String) -> Bytes {
    frame(&v1::CreateUserRequest { user: Some(user), user_id, ..v1::CreateUserRequest::default() })
}

/// A message behind its five bytes of gRPC framing.
pub fn frame(message: &impl Message) -> Bytes {
    let len = message.encoded_len();
    let mut out = BytesMut::with_capacity(len + 5);
    out.put_u8(0);
    out.put_u32(u32::try_from(len).expect("a request is small"));
    message.encode(&mut out).expect("the buffer has room");
    out.freeze()
}

fn id(n: u64) -> String {
    format!("u-{n:09}")
}

fn name(n: u64) -> String {
    format!("User Number {n}")
}

fn email(n: u64) -> String {
    format!("user.{n}@example.com")
}

fn age(n: u64) -> i32 {
    i32::try_from(n % 100).expect("below 100")
}
