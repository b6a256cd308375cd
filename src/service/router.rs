//! From what a call matched to the service that answers it.

use std::{
    convert::Infallible,
    future::ready,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Method as Verb, Request, Response, StatusCode};
use tower::service_fn;
use tower_service::Service;

use super::{
    article::Article,
    health::Health,
    reflection::Reflection,
    response_body::ResponseBody,
    store_handle::{StoreHandle, StoreSlot},
    streaming::{grpc, server_streaming, with_error_details},
    unary::answer,
    user_v1::UserV1,
};
use crate::{
    config::Config,
    proto::health::health_server::Health as _,
    rpc::{call::Inbound, methods::MethodId, status},
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Every service, as one tower service. Uses the matched method of the
/// [`Inbound`] call, never the path.
#[derive(Clone)]
pub struct Router(Arc<Services>);

/// Behind one pointer, as the way in clones the whole stack for every call.
struct Services {
    user_v1: UserV1,
    /// `None` where it is switched off.
    article: Option<Article>,
    health: Health,
    reflection: Reflection,
    max_message_bytes: usize,
}

impl Router {
    /// # Panics
    /// If the descriptors that were compiled in cannot be read.
    pub fn new(config: &Config, store: &StoreSlot, health: &Health) -> Self {
        let users = StoreHandle::new(store.clone());
        // The same limit as the layers', which answer first for a message as sent;
        // here it bounds what a compressed one unpacks to.
        let max_message_bytes = config.max_request_bytes;
        let reflection = Reflection::new(config.article_api, max_message_bytes, health)
            .expect("descriptors are compiled in and tested");
        Self(Arc::new(Services {
            article: config.article_api.then(|| Article(users.clone())),
            user_v1: UserV1::new(users, config),
            health: health.clone(),
            reflection,
            max_message_bytes,
        }))
    }

    /// The answer of the method that was matched; `None` where none was, or where it is
    /// switched off.
    fn dispatch<B>(&self, request: Request<Inbound<B>>) -> Option<Served>
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static,
    {
        let services = Arc::clone(&self.0);
        let limit = services.max_message_bytes;
        macro_rules! unary {
            ($service:expr, $method:ident) => {{
                Box::pin(answer(request, limit, async move |call, message| {
                    $service.$method(call, message).await
                }))
            }};
        }
        // The health protocol asks nothing of a call, so it is the generated trait's.
        macro_rules! health {
            ($method:ident) => {{
                Box::pin(answer(request, limit, async move |_, message| {
                    let answered = services.health.$method(tonic::Request::new(message)).await;
                    answered.map(tonic::Response::into_inner)
                }))
            }};
        }
        Some(match request.body().call.method?.id {
            MethodId::GetUser => unary!(services.user_v1, get_user),
            MethodId::CreateUser => unary!(services.user_v1, create_user),
            MethodId::BatchGetUsers => unary!(services.user_v1, batch_get_users),
            MethodId::ListUsers => unary!(services.user_v1, list_users),
            MethodId::UpdateUser => unary!(services.user_v1, update_user),
            MethodId::DeleteUser => unary!(services.user_v1, delete_user),
            MethodId::ImportUsers => {
                let (call, request) = Inbound::split(request);
                let serve = service_fn(move |messages: tonic::Request<_>| {
                    let answers = services.user_v1.import_users(&call, messages.into_inner());
                    ready(answers.map(tonic::Response::new))
                });
                Box::pin(
                    async move { with_error_details(grpc(limit).streaming(serve, request).await, limit) },
                )
            }
            MethodId::WatchUsers => {
                let (call, request) = Inbound::split(request);
                Box::pin(server_streaming(request, limit, async move |message| {
                    services.user_v1.watch_users(call, message).await.map(tonic::Response::new)
                }))
            }
            MethodId::ArticleGetUser => {
                let article = services.article.clone()?;
                unary!(article, get_user)
            }
            MethodId::ArticleCreateUser => {
                let article = services.article.clone()?;
                unary!(article, create_user)
            }
            MethodId::HealthCheck => health!(check),
            MethodId::HealthList => health!(list),
            MethodId::HealthWatch => {
                let request = Inbound::split(request).1;
                Box::pin(server_streaming(request, limit, async move |message| {
                    services.health.watch(tonic::Request::new(message)).await
                }))
            }
            MethodId::ReflectionV1 | MethodId::ReflectionV1Alpha => {
                let request = Inbound::split(request).1;
                let serve = service_fn(move |requests: tonic::Request<_>| {
                    let answers = services.reflection.answers(requests.into_inner());
                    ready(Ok(tonic::Response::new(answers)))
                });
                Box::pin(
                    async move { with_error_details(grpc(limit).streaming(serve, request).await, limit) },
                )
            }
        })
    }
}

impl<B> Service<Request<Inbound<B>>> for Router
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = RouterFuture;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Inbound<B>>) -> RouterFuture {
        if request.method() != Verb::POST {
            let mut response = status::unimplemented().into_http();
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            response.headers_mut().insert(http::header::ALLOW, HeaderValue::from_static("POST"));
            return RouterFuture::Ready(Some(response));
        }
        match self.dispatch(request) {
            Some(served) => RouterFuture::Served(served),
            None => RouterFuture::Ready(Some(status::unimplemented().into_http())),
        }
    }
}

type Served = Pin<Box<dyn Future<Output = Response<ResponseBody>> + Send>>;

/// The answer to come.
pub enum RouterFuture {
    Served(Served),
    /// Taken when it is polled.
    Ready(Option<Response<ResponseBody>>),
}

impl Future for RouterFuture {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Served(served) => served.as_mut().poll(cx).map(Ok),
            Self::Ready(response) => {
                Poll::Ready(Ok(response.take().expect("a future is not polled after its end")))
            }
        }
    }
}

#[cfg(test)]
mod tests;
