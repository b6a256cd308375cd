//! The calls that are made, as bytes on the wire. User number n has the id
//! `u-n` and an e-mail address of its own, so a reader needs no list of ids.

use std::cell::Cell;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use rand::{Rng, SeedableRng, rngs::SmallRng};

use crate::{Which, connection::Reply, messages as article, messages::user::v1};

/// Users in a `BatchGetUsers`.
const BATCH: usize = 100;

#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Kind {
    /// `user.v1.UserService/GetUser`
    Get,
    /// `user.v1.UserService/BatchGetUsers` of 100
    Batch,
    /// `user.v1.UserService/CreateUser`
    Create,
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
            Kind::Get => "/user.v1.UserService/GetUser",
            Kind::Batch => "/user.v1.UserService/BatchGetUsers",
            Kind::Create => "/user.v1.UserService/CreateUser",
            Kind::ArticleGet => "/UserService/GetUser",
            Kind::ArticleCreate => "/UserService/CreateUser",
        }
    }

    /// The next request, framed.
    pub fn request(&self) -> Bytes {
        match self.which.kind {
            Kind::Get => frame(&v1::GetUserRequest { key: Some(v1::get_user_request::Key::Id(self.any())) }),
            Kind::Batch => {
                let ids = (0..BATCH).map(|_| self.any()).collect();
                frame(&v1::BatchGetUsersRequest { ids, allow_missing: false })
            }
            Kind::Create => {
                let n = self.fresh();
                let user = v1::User { name: name(n), email: email(n), age: age(n), ..v1::User::default() };
                let user_id = id(n);
                frame(&v1::CreateUserRequest {
                    user: Some(user),
                    user_id,
                    ..v1::CreateUserRequest::default()
                })
            }
            Kind::ArticleGet => {
                let user = article::User { id: self.any(), ..article::User::default() };
                frame(&article::UserRequest { user: Some(user) })
            }
            Kind::ArticleCreate => {
                let n = self.fresh();
                let user = article::User { name: name(n), email: email(n), age: age(n), id: id(n) };
                frame(&article::CreateUserRequest { user: Some(user) })
            }
        }
    }

    /// Whether an OK really brought what was asked for.
    pub fn is_right(&self, reply: &Reply) -> bool {
        let message = reply.message();
        match self.which.kind {
            Kind::Batch => {
                v1::BatchGetUsersResponse::decode(message).is_ok_and(|answer| answer.users.len() == BATCH)
            }
            // Every other answer starts with the user: field 1, not empty.
            _ => message.len() > 2 && message[0] == 0x0a && message[1] > 0,
        }
    }

    fn any(&self) -> String {
        id(self.random.borrow_mut().random_range(0..self.which.users))
    }

    fn fresh(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
    }
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
