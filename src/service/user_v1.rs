//! `user.v1.UserService`: reads requests into the domain's words, and answers
//! from what the store says.

use std::{sync::Arc, time::Duration};

use tonic::{Request, Response, Status, Streaming};

use super::{
    call::Call,
    status,
    users::{Users, timestamp},
};
use crate::{
    config::Config,
    domain::{Error, PageToken, Resource, User, UserKey, Write},
    feed::Watch,
    proto::user::v1 as pb,
};

mod import;
mod request;
#[cfg(test)]
mod tests;
mod watch;

/// The service's own contract.
#[derive(Clone)]
pub struct UserV1 {
    users: Users,
    heartbeat: Duration,
    max_message_bytes: usize,
    imported: Arc<import::Counts>,
}

impl UserV1 {
    pub fn new(users: Users, config: &Config) -> Self {
        Self {
            users,
            heartbeat: config.watch_heartbeat,
            max_message_bytes: config.max_request_bytes,
            imported: Arc::new(import::Counts::new()),
        }
    }
}

#[tonic::async_trait]
impl pb::user_service_server::UserService for UserV1 {
    async fn create_user(
        &self,
        request: Request<pb::CreateUserRequest>,
    ) -> Result<Response<pb::CreateUserResponse>, Status> {
        let call = Call::of(request.extensions());
        let mut request = request.into_inner();
        let (change, request_id) = request::create(&request).map_err(status::status)?;
        request.request_id.clear();
        let idempotency = call.idempotency("user.v1.UserService/CreateUser", request_id, &request);
        let write = Write { change, idempotency, validate_only: request.validate_only };
        let user = self.users.save(write, &request.user_id, call.deadline).await?;
        Ok(Response::new(pb::CreateUserResponse { user: Some(message(&user)) }))
    }

    async fn get_user(
        &self,
        request: Request<pb::GetUserRequest>,
    ) -> Result<Response<pb::GetUserResponse>, Status> {
        let deadline = Call::deadline(request.extensions());
        let key = request::key(request.get_ref()).map_err(status::status)?;
        let user = self.users.store()?.get(&key, deadline).await.map_err(status::status)?;
        match user {
            Some(user) => Ok(Response::new(pb::GetUserResponse { user: Some(message(&user)) })),
            None => Err(match key {
                UserKey::Id(id) => status::about(Error::NotFound(Resource::Id), id.as_str()),
                UserKey::Email(_) => status::status(Error::NotFound(Resource::Email)),
            }),
        }
    }

    async fn batch_get_users(
        &self,
        request: Request<pb::BatchGetUsersRequest>,
    ) -> Result<Response<pb::BatchGetUsersResponse>, Status> {
        let deadline = Call::deadline(request.extensions());
        let request = request.into_inner();
        let ids = request::ids(&request).map_err(status::status)?;
        let found = self.users.store()?.batch_get(&ids, deadline).await.map_err(status::status)?;
        let mut response = pb::BatchGetUsersResponse::default();
        for (id, user) in ids.iter().zip(&found) {
            match user {
                Some(user) => response.users.push(message(user)),
                None if request.allow_missing => response.missing_ids.push(id.as_str().into()),
                None => return Err(status::about(Error::NotFound(Resource::Id), id.as_str())),
            }
        }
        Ok(Response::new(response))
    }

    async fn list_users(
        &self,
        request: Request<pb::ListUsersRequest>,
    ) -> Result<Response<pb::ListUsersResponse>, Status> {
        let deadline = Call::deadline(request.extensions());
        let (size, token) = request::page(request.get_ref()).map_err(status::status)?;
        let after = token.as_ref().map(PageToken::id);
        let page = self.users.store()?.list(after, size, deadline).await.map_err(status::status)?;
        let next = page.users.last().filter(|_| page.more).map(|last| PageToken::after(last.id.clone()));
        Ok(Response::new(pb::ListUsersResponse {
            users: page.users.iter().map(message).collect(),
            next_page_token: next.map(|token| token.encode()).unwrap_or_default(),
        }))
    }

    async fn update_user(
        &self,
        request: Request<pb::UpdateUserRequest>,
    ) -> Result<Response<pb::UpdateUserResponse>, Status> {
        let call = Call::of(request.extensions());
        let mut request = request.into_inner();
        let (change, request_id) = request::update(&request).map_err(status::status)?;
        request.request_id.clear();
        let idempotency = call.idempotency("user.v1.UserService/UpdateUser", request_id, &request);
        let write = Write { change, idempotency, validate_only: request.validate_only };
        let id = request.user.map(|user| user.id).unwrap_or_default();
        let user = self.users.save(write, &id, call.deadline).await?;
        Ok(Response::new(pb::UpdateUserResponse { user: Some(message(&user)) }))
    }

    async fn delete_user(
        &self,
        request: Request<pb::DeleteUserRequest>,
    ) -> Result<Response<pb::DeleteUserResponse>, Status> {
        let call = Call::of(request.extensions());
        let mut request = request.into_inner();
        let (change, request_id) = request::delete(&request).map_err(status::status)?;
        request.request_id.clear();
        let idempotency = call.idempotency("user.v1.UserService/DeleteUser", request_id, &request);
        let write = Write { change, idempotency, validate_only: false };
        self.users.write(write, &request.id, call.deadline).await?;
        Ok(Response::new(pb::DeleteUserResponse {}))
    }

    type ImportUsersStream = import::Answers;

    async fn import_users(
        &self,
        request: Request<Streaming<pb::ImportUsersRequest>>,
    ) -> Result<Response<import::Answers>, Status> {
        let call = Call::of(request.extensions());
        let store = Arc::clone(self.users.store()?);
        let importing = import::Importing {
            store,
            deadline: call.deadline,
            requests: request.into_inner(),
            max_message_bytes: self.max_message_bytes,
            leaving: call.farewells.hear(),
            counts: Arc::clone(&self.imported),
        };
        Ok(Response::new(importing.answers()))
    }

    type WatchUsersStream = watch::Messages;

    async fn watch_users(
        &self,
        request: Request<pb::WatchUsersRequest>,
    ) -> Result<Response<watch::Messages>, Status> {
        let call = Call::of(request.extensions());
        let token = request::resume_token(request.get_ref()).map_err(status::status)?;
        let initial_state = request.get_ref().initial_state;
        let begun = Watch::begin(self.users.feed()?, initial_state, token, call.deadline).await;
        let watch = begun.map_err(status::status)?;
        Ok(Response::new(
            watch::Telling { watch, heartbeat: self.heartbeat, leaving: call.farewells.hear() }.messages(),
        ))
    }
}

fn message(user: &User) -> pb::User {
    pb::User {
        name: user.name.as_str().into(),
        email: user.email.as_str().into(),
        age: user.age.years().into(),
        id: user.id.as_str().into(),
        etag: user.etag().to_string(),
        create_time: Some(timestamp(user.create_time)),
        update_time: Some(timestamp(user.update_time)),
    }
}
