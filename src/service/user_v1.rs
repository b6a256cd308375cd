//! `user.v1.UserService`: reads requests into the domain's words, and answers
//! from what the store says.

use std::{sync::Arc, time::Duration};

use tonic::{Status, Streaming};

use self::fields::message;
use super::{error_status, store_handle::StoreHandle};
use crate::{
    config::Config,
    domain::{Error, PageToken, UniqueKey, UserId, UserKey, Write},
    feed::Watch,
    proto::user::v1 as pb,
    rpc::call::Call,
};

mod fields;
mod import;
mod request;
#[cfg(test)]
mod tests;
mod watch;

/// The service's own contract.
#[derive(Clone)]
pub struct UserV1 {
    users: StoreHandle,
    heartbeat: Duration,
    max_message_bytes: usize,
    imports: Arc<import::ImportLimits>,
}

impl UserV1 {
    pub fn new(users: StoreHandle, config: &Config) -> Self {
        Self {
            users,
            heartbeat: config.watch_heartbeat,
            max_message_bytes: config.max_request_bytes,
            imports: Arc::new(import::ImportLimits::new()),
        }
    }

    pub async fn create_user(
        &self,
        call: Call,
        mut request: pb::CreateUserRequest,
    ) -> Result<pb::CreateUserResponse, Status> {
        let (change, request_id) = request::create(&request).map_err(error_status::from_error)?;
        call.authorize(UserId::parse(&request.user_id).ok().as_ref())?;
        request.request_id.clear();
        let idempotency = call.idempotency(request_id, &request);
        let write = Write { change, idempotency, validate_only: request.validate_only };
        let user = self.users.save(write, &request.user_id, call.deadline).await?;
        call.audit_user(&user.id);
        Ok(pb::CreateUserResponse { user: Some(message(&user)) })
    }

    pub async fn get_user(
        &self,
        call: Call,
        request: pb::GetUserRequest,
    ) -> Result<pb::GetUserResponse, Status> {
        let key = request::key(&request).map_err(error_status::from_error)?;
        call.authorize(key.id())?;
        let user = self.users.get(&key, call.deadline).await?;
        match user {
            Some(user) => Ok(pb::GetUserResponse { user: Some(message(&user)) }),
            None => Err(match key {
                UserKey::Id(id) => error_status::for_user(Error::NotFound(UniqueKey::Id), id.as_str()),
                UserKey::Email(_) => error_status::from_error(Error::NotFound(UniqueKey::Email)),
            }),
        }
    }

    pub async fn batch_get_users(
        &self,
        call: Call,
        request: pb::BatchGetUsersRequest,
    ) -> Result<pb::BatchGetUsersResponse, Status> {
        let ids = request::ids(&request).map_err(error_status::from_error)?;
        let found =
            self.users.store()?.batch_get(&ids, call.deadline).await.map_err(error_status::from_error)?;
        let mut response = pb::BatchGetUsersResponse::default();
        for (id, user) in ids.iter().zip(&found) {
            match user {
                Some(user) => response.users.push(message(user)),
                None if request.allow_missing => response.missing_ids.push(id.as_str().into()),
                None => return Err(error_status::for_user(Error::NotFound(UniqueKey::Id), id.as_str())),
            }
        }
        Ok(response)
    }

    pub async fn list_users(
        &self,
        call: Call,
        request: pb::ListUsersRequest,
    ) -> Result<pb::ListUsersResponse, Status> {
        let (size, token) = request::page(&request).map_err(error_status::from_error)?;
        let after = token.as_ref().map(PageToken::id);
        let page =
            self.users.store()?.list(after, size, call.deadline).await.map_err(error_status::from_error)?;
        let next = page.users.last().filter(|_| page.more).map(|last| PageToken::after(last.id.clone()));
        Ok(pb::ListUsersResponse {
            users: page.users.iter().map(message).collect(),
            next_page_token: next.map(|token| token.encode()).unwrap_or_default(),
        })
    }

    pub async fn update_user(
        &self,
        call: Call,
        mut request: pb::UpdateUserRequest,
    ) -> Result<pb::UpdateUserResponse, Status> {
        let (change, request_id) = request::update(&request).map_err(error_status::from_error)?;
        call.authorize(change.id())?;
        request.request_id.clear();
        let idempotency = call.idempotency(request_id, &request);
        let write = Write { change, idempotency, validate_only: request.validate_only };
        let id = request.user.map(|user| user.id).unwrap_or_default();
        let user = self.users.save(write, &id, call.deadline).await?;
        Ok(pb::UpdateUserResponse { user: Some(message(&user)) })
    }

    pub async fn delete_user(
        &self,
        call: Call,
        mut request: pb::DeleteUserRequest,
    ) -> Result<pb::DeleteUserResponse, Status> {
        let (change, request_id) = request::delete(&request).map_err(error_status::from_error)?;
        call.authorize(change.id())?;
        request.request_id.clear();
        let idempotency = call.idempotency(request_id, &request);
        let write = Write { change, idempotency, validate_only: false };
        self.users.write(write, &request.id, call.deadline).await?;
        Ok(pb::DeleteUserResponse {})
    }

    pub fn import_users(
        &self,
        call: &Call,
        requests: Streaming<pb::ImportUsersRequest>,
    ) -> Result<import::ImportResponses, Status> {
        let stream = import::ImportStream {
            store: Arc::clone(self.users.store()?),
            deadline: call.deadline,
            requests,
            max_message_bytes: self.max_message_bytes,
            goaway: call.connection.subscribe(),
            shared: Arc::clone(&self.imports),
            audit: call.audit.clone(),
        };
        Ok(stream.answers())
    }

    pub async fn watch_users(
        &self,
        call: Call,
        request: pb::WatchUsersRequest,
    ) -> Result<watch::WatchResponses, Status> {
        let token = request::resume_token(&request).map_err(error_status::from_error)?;
        let begun = Watch::begin(self.users.feed()?, request.initial_state, token, call.deadline).await;
        let watch = begun.map_err(error_status::from_error)?;
        Ok(watch::WatchStream { watch, heartbeat: self.heartbeat, goaway: call.connection.subscribe() }
            .messages())
    }
}
