//! The article's contract on a concurrent map: the service both tonic peers serve.

use dashmap::DashMap;
use tonic::{Request, Response, Status};

mod generated {
    tonic::include_proto!("_");
}
pub use generated::{user_service_server::UserServiceServer, *};

/// What reflection serves.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/user.fds"));

/// The users.
#[derive(Default)]
pub struct Users(DashMap<String, User>);

#[tonic::async_trait]
impl user_service_server::UserService for Users {
    async fn get_user(&self, request: Request<UserRequest>) -> Result<Response<UserResponse>, Status> {
        let asked = request.into_inner().user.unwrap_or_default();
        match self.0.get(&asked.id) {
            Some(user) => {
                Ok(Response::new(UserResponse { user: Some(user.clone()), ..UserResponse::default() }))
            }
            None => Err(Status::not_found("User not found")),
        }
    }

    async fn create_user(
        &self,
        request: Request<CreateUserRequest>,
    ) -> Result<Response<CreateUserResponse>, Status> {
        let user = request.into_inner().user.unwrap_or_default();
        self.0.insert(user.id.clone(), user.clone());
        Ok(Response::new(CreateUserResponse { user: Some(user) }))
    }
}
