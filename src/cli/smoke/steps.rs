//! The steps of `smoke`, each one thing that a deployment must do.

use std::time::Duration;

use tonic::{Code, Request, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use uuid::Uuid;

use super::StepResult;
use crate::{
    cli::{client::Connection, console::describe, retry::Retry},
    proto::{
        article::{self, user_service_client::UserServiceClient as ArticleClient},
        user::v1::{
            BatchGetUsersRequest, CreateUserRequest, DeleteUserRequest, GetUserRequest, ListUsersRequest,
            UpdateUserRequest, User, get_user_request::Key, user_service_client::UserServiceClient,
        },
    },
};

const SERVICE: &str = "user.v1.UserService";
const ARTICLE_SERVICE: &str = "UserService";

/// What the steps know of each other.
pub struct Steps {
    channel: Connection,
    users: UserServiceClient<Connection>,
    /// As the server last returned it; before that, as it is to be created.
    user: User,
    /// The one before the update.
    stale_etag: String,
    may_have_created: bool,
    serves_article: bool,
}

impl Steps {
    pub fn new(channel: Connection) -> Self {
        // A random id, so that neither a step nor the clean-up can meet an existing user.
        let id = format!("smoke-{}", Uuid::new_v4());
        let user = User {
            name: "Smoke Test".into(),
            email: format!("{id}@example.com"),
            age: 42,
            id,
            ..User::default()
        };
        let users = UserServiceClient::new(channel.clone());
        Self {
            channel,
            users,
            user,
            stale_etag: String::new(),
            may_have_created: false,
            serves_article: false,
        }
    }

    pub fn may_have_created(&self) -> bool {
        self.may_have_created
    }

    pub async fn health(&self) -> StepResult {
        let mut client = HealthClient::new(self.channel.clone());
        for service in ["", SERVICE] {
            let request = HealthCheckRequest { service: service.into() };
            let response = client.check(request).await.map_err(failed)?;
            match HealthCheckResponse::status(response.get_ref()) {
                ServingStatus::Serving => {}
                other => return Err(format!("{service:?} is {}", other.as_str_name())),
            }
        }
        Ok("SERVING".into())
    }

    pub async fn reflection(&mut self) -> StepResult {
        let ask = ServerReflectionRequest {
            message_request: Some(MessageRequest::ListServices(String::new())),
            ..ServerReflectionRequest::default()
        };
        let mut client = ServerReflectionClient::new(self.channel.clone());
        let request = Request::new(tokio_stream::once(ask));
        let mut answers = client.server_reflection_info(request).await.map_err(failed)?.into_inner();
        let answer = answers.message().await.map_err(failed)?.and_then(|answer| answer.message_response);
        let Some(MessageResponse::ListServicesResponse(list)) = answer else {
            return Err("no list of services".into());
        };
        let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
        self.serves_article = names.iter().any(|name| name == ARTICLE_SERVICE);
        expect(names.iter().any(|name| name == SERVICE), &format!("{SERVICE} is not in the list"))?;
        Ok(names.join(", "))
    }

    pub async fn create(&mut self) -> StepResult {
        let asked = self.user.clone();
        let request = CreateUserRequest {
            user: Some(asked.clone()),
            user_id: asked.id.clone(),
            request_id: Uuid::new_v4().to_string(),
            validate_only: false,
        };
        self.may_have_created = true;
        let user =
            self.users.create_user(request).await.map_err(failed)?.into_inner().user.unwrap_or_default();
        expect(same(&user, &asked) && !user.etag.is_empty(), "another user came back")?;
        self.user = user;
        Ok(self.user.id.clone())
    }

    pub async fn get_by_id(&mut self) -> StepResult {
        let key = Key::Id(self.user.id.clone());
        self.get(key).await
    }

    pub async fn get_by_email(&mut self) -> StepResult {
        let key = Key::Email(self.user.email.to_uppercase());
        self.get(key).await
    }

    async fn get(&mut self, key: Key) -> StepResult {
        let request = GetUserRequest { key: Some(key) };
        let found = self.users.get_user(request).await.map_err(failed)?.into_inner().user;
        expect(found.as_ref() == Some(&self.user), "another user came back")?;
        Ok("the user as stored".into())
    }

    pub async fn batch_get(&mut self) -> StepResult {
        let missing = format!("smoke-{}", Uuid::new_v4());
        let request =
            BatchGetUsersRequest { ids: vec![missing.clone(), self.user.id.clone()], allow_missing: true };
        let found = self.users.batch_get_users(request).await.map_err(failed)?.into_inner();
        let right = found.users == [self.user.clone()] && found.missing_ids == [missing];
        expect(right, "not the user that there is and the id that is missing")?;
        Ok("one found, one missing".into())
    }

    pub async fn list(&mut self) -> StepResult {
        let request = ListUsersRequest { page_size: 2, page_token: String::new() };
        let page = self.users.list_users(request).await.map_err(failed)?.into_inner();
        let ordered = page.users.is_sorted_by(|a, b| a.id < b.id);
        expect(ordered && matches!(page.users.len(), 1..=2), "not 1 or 2 users in the order of their ids")?;
        Ok("a page".into())
    }

    pub async fn update(&mut self) -> StepResult {
        let asked = User { name: "Smoke Test, renamed".into(), ..self.user.clone() };
        let request = UpdateUserRequest {
            user: Some(asked.clone()),
            update_mask: Some(prost_types::FieldMask { paths: vec!["name".into()] }),
            ..UpdateUserRequest::default()
        };
        let user =
            self.users.update_user(request).await.map_err(failed)?.into_inner().user.unwrap_or_default();
        expect(same(&user, &asked) && user.etag != asked.etag, "not updated, or with the old etag")?;
        self.stale_etag = std::mem::replace(&mut self.user, user).etag;
        Ok("with the current etag".into())
    }

    pub async fn stale_etag(&mut self) -> StepResult {
        let request = DeleteUserRequest {
            id: self.user.id.clone(),
            etag: self.stale_etag.clone(),
            ..DeleteUserRequest::default()
        };
        match self.users.delete_user(request).await {
            Err(status) if status.code() == Code::Aborted => Ok("refused".into()),
            Err(status) => Err(failed(status)),
            Ok(_) => Err("a delete with a stale etag was done".into()),
        }
    }

    pub async fn article(&mut self) -> StepResult {
        if !self.serves_article {
            return Ok("not served here".into());
        }
        let wanted = article::User { id: self.user.id.clone(), ..article::User::default() };
        let request = article::UserRequest { user: Some(wanted) };
        let mut client = ArticleClient::new(self.channel.clone());
        let found = client.get_user(request).await.map_err(failed)?.into_inner().user.unwrap_or_default();
        expect(found.id == self.user.id && found.name == self.user.name, "another user came back")?;
        Ok("the same user".into())
    }

    pub async fn delete(&mut self) -> StepResult {
        let User { id, etag, .. } = self.user.clone();
        let request = DeleteUserRequest { id, etag, ..DeleteUserRequest::default() };
        self.users.delete_user(request).await.map_err(failed)?;
        Ok("with the current etag".into())
    }

    pub async fn gone(&mut self) -> StepResult {
        let request = GetUserRequest { key: Some(Key::Id(self.user.id.clone())) };
        match self.users.get_user(request).await {
            Err(status) if status.code() == Code::NotFound => Ok("nothing is left behind".into()),
            Err(status) => Err(failed(status)),
            Ok(_) => Err("the deleted user is still there".into()),
        }
    }

    /// Deletes the user, if there is one.
    pub async fn clean_up(&mut self, timeout: Duration) -> StepResult {
        let id = self.user.id.clone();
        let request =
            DeleteUserRequest { id: id.clone(), allow_missing: true, ..DeleteUserRequest::default() };
        // A quota that stopped a step may refuse this as well, and says when to come again.
        let mut retry = Retry::new(timeout);
        while let Err(status) = self.users.delete_user(request.clone()).await {
            let why = retry.pause(status.into()).await;
            why.map_err(|why| format!("the user {id} may be left behind: {why}"))?;
        }
        Ok("nothing is left behind".into())
    }
}

/// Whether two users say the same, but for what the server assigns.
fn same(a: &User, b: &User) -> bool {
    let sent =
        |user: &User| User { etag: String::new(), create_time: None, update_time: None, ..user.clone() };
    sent(a) == sent(b)
}

fn expect(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(status: Status) -> String {
    describe(&status)
}
