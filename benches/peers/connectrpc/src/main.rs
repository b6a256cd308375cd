//! The official crate of ConnectRPC, which serves gRPC as well, on a concurrent map:
//! `connectrpc-plain PORT`.

use std::{env, error::Error, net::Ipv4Addr, sync::Arc};

use connectrpc::{ConnectError, RequestContext, Response, Router, Server, ServiceRequest, ServiceResult};
use dashmap::DashMap;

use contract::{CreateUserRequest, CreateUserResponse, User, UserRequest, UserResponse, UserService};

#[allow(warnings, clippy::all, clippy::pedantic, reason = "generated")]
mod contract {
    include!(concat!(env!("OUT_DIR"), "/contract.rs"));
}

#[derive(Default)]
struct Users(DashMap<String, User>);

impl UserService for Users {
    async fn get_user(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, UserRequest>,
    ) -> ServiceResult<UserResponse> {
        let id = request.user.as_option().map_or("", |user| user.id);
        let Some(user) = self.0.get(id) else { return Err(ConnectError::not_found("User not found")) };
        Response::ok(UserResponse { user: Some(user.clone()).into(), ..UserResponse::default() })
    }

    async fn create_user(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, CreateUserRequest>,
    ) -> ServiceResult<CreateUserResponse> {
        let user = request.to_owned_message().user.into_option().unwrap_or_default();
        self.0.insert(user.id.clone(), user.clone());
        Response::ok(CreateUserResponse { user: Some(user).into(), ..CreateUserResponse::default() })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let port: u16 = env::args().nth(1).ok_or("usage: connectrpc-plain PORT")?.parse()?;
    let router = Router::new().add_service(Arc::new(Users::default()));
    Server::new(router).serve((Ipv4Addr::LOCALHOST, port).into()).await?;
    Ok(())
}
