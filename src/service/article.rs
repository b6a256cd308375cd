//! The article's contract: a thin translation onto the same users.

use tonic::Status;

use super::{error_status, store_handle::StoreHandle, violations::Violations};
use crate::{
    domain::{Age, Change, Email, Error, Fields, Name, User, UserId, UserKey, Write},
    proto::article as pb,
    rpc::call::Call,
};

/// The article's text for a missing user.
const NOT_FOUND_TEXT: &str = "User not found";

/// The article's `UserService`.
#[derive(Clone)]
pub struct Article(pub StoreHandle);

impl Article {
    pub async fn get_user(&self, call: Call, request: pb::UserRequest) -> Result<pb::UserResponse, Status> {
        let key = key(&request.user.unwrap_or_default());
        call.authorize(key.as_ref().and_then(UserKey::id))?;
        let user = match key {
            Some(key) => self.0.get(&key, call.deadline).await?,
            // Even so it is said whether the service has started.
            None => self.0.store().map(|_| None)?,
        };
        let error = if user.is_none() { NOT_FOUND_TEXT } else { "" };
        Ok(pb::UserResponse { user: user.as_deref().map(message), error: error.into() })
    }

    pub async fn create_user(
        &self,
        call: Call,
        request: pb::CreateUserRequest,
    ) -> Result<pb::CreateUserResponse, Status> {
        let change = put(&request).map_err(error_status::from_error)?;
        call.authorize(change.id())?;
        let write = Write { change, idempotency: None, validate_only: false };
        let id = request.user.map(|user| user.id).unwrap_or_default();
        let user = self.0.save(write, &id, call.deadline).await?;
        call.audit_user(&user.id);
        Ok(pb::CreateUserResponse { user: Some(message(&user)) })
    }
}

/// The key to look up; `None` where no user can have it.
fn key(user: &pb::User) -> Option<UserKey> {
    if user.id.is_empty() {
        Email::parse(&user.email).ok().map(UserKey::Email)
    } else {
        UserId::parse(&user.id).ok().map(UserKey::Id)
    }
}

fn put(request: &pb::CreateUserRequest) -> Result<Change, Error> {
    let mut violations = Violations::default();
    let Some(user) = violations.required("user", request.user.as_ref()) else {
        return Err(violations.into_error());
    };
    let id = violations.optional("user.id", &user.id, UserId::parse);
    match fields(&mut violations, user) {
        Some(fields) if violations.is_empty() => {
            Ok(Change::Upsert { id, new_id: UserId::generate(), fields })
        }
        _ => Err(violations.into_error()),
    }
}

/// A new user's fields. Of one that is there, those that are not in this contract stay:
/// [`Fields::overwritten_by_article`].
fn fields(violations: &mut Violations, user: &pb::User) -> Option<Fields> {
    let pb::User { name, email, age, id: _ } = user;
    let name = violations.check("user.name", Name::parse(name));
    let email = violations.check("user.email", Email::parse(email));
    let age = violations.check("user.age", Age::parse(*age));
    Some(Fields { name: name?, email: email?, age: age? })
}

fn message(user: &User) -> pb::User {
    pb::User {
        name: user.fields.name.as_str().into(),
        email: user.fields.email.as_str().into(),
        age: user.fields.age.years().into(),
        id: user.id.as_str().into(),
    }
}

#[cfg(test)]
mod tests;
