//! From what a call matched to the service that answers it.

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method as Verb, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use tonic::{Status, body::Body, codec::CompressionEncoding::Gzip};
use tower_service::Service;

use super::{
    article::Article,
    call::Users,
    health::Health,
    methods::{Api, Matched},
    reflection::Reflection,
    status,
    user_v1::UserV1,
};
use crate::{
    config::Config,
    domain::Store,
    proto::{
        article::user_service_server::UserServiceServer as ArticleServer,
        health::health_server::HealthServer, user::v1::user_service_server::UserServiceServer,
    },
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Where the store will be: health is served before the store is open.
#[derive(Clone, Default)]
pub struct StoreSlot(Arc<OnceLock<Arc<dyn Store>>>);

impl StoreSlot {
    /// Puts the store in. Only the first one counts.
    pub fn open(&self, store: Arc<dyn Store>) {
        let _ = self.0.set(store);
    }

    /// The store, or UNAVAILABLE while there is none.
    pub fn get(&self) -> Result<&Arc<dyn Store>, Status> {
        self.0.get().ok_or_else(status::starting)
    }
}

/// Every service, as one tower service. Reads [`Matched`] from the request's
/// extensions, and never its path.
#[derive(Clone)]
pub struct Router(Arc<Services>);

/// Behind one pointer, as the way in clones the whole stack for every call.
struct Services {
    user_v1: UserServiceServer<UserV1>,
    /// `None` where it is switched off.
    article: Option<ArticleServer<Article>>,
    health: HealthServer<Health>,
    reflection_v1: Reflection,
    reflection_v1alpha: Reflection,
    max_message_bytes: usize,
}

impl Router {
    /// # Panics
    /// If the descriptors that were compiled in cannot be read.
    pub fn new(config: &Config, store: &StoreSlot, health: &Health) -> Self {
        let users = Users::new(store.clone());
        // The same limit as the layers', which answer first for a message as sent;
        // here it bounds what a compressed one unpacks to.
        let limit = config.max_request_bytes;
        let article = || {
            ArticleServer::new(Article(users.clone()))
                .accept_compressed(Gzip)
                .max_decoding_message_size(limit)
        };
        let (reflection_v1, reflection_v1alpha) = Reflection::both(config.article_api, limit, health)
            .expect("descriptors are compiled in and tested");
        Self(Arc::new(Services {
            article: config.article_api.then(article),
            user_v1: UserServiceServer::new(UserV1(users))
                .accept_compressed(Gzip)
                .max_decoding_message_size(limit),
            health: health.server().max_decoding_message_size(limit),
            reflection_v1,
            reflection_v1alpha,
            max_message_bytes: limit,
        }))
    }

    fn dispatch<B>(&self, request: Request<B>) -> Option<Served>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError> + Send,
    {
        let services = &*self.0;
        let Matched(matched) = request.extensions().get().copied()?;
        Some(match matched?.api {
            Api::UserV1 => services.user_v1.clone().call(request),
            Api::Article => services.article.clone()?.call(request),
            Api::Health => services.health.clone().call(request),
            Api::ReflectionV1 => services.reflection_v1.call(request),
            Api::ReflectionV1Alpha => services.reflection_v1alpha.call(request),
        })
    }
}

impl<B> Service<Request<B>> for Router
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError> + Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = RouterFuture;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> RouterFuture {
        let answer = if !is_grpc(request.headers()) {
            Answer::Served(Box::pin(refuse(request.into_body())))
        } else if request.method() != Verb::POST {
            let mut response = status::unimplemented().into_http();
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            response.headers_mut().insert(http::header::ALLOW, HeaderValue::from_static("POST"));
            Answer::Ready(Some(response))
        } else {
            match self.dispatch(request) {
                Some(future) => Answer::Served(future),
                None => Answer::Ready(Some(status::unimplemented().into_http())),
            }
        };
        RouterFuture { answer, max_message_bytes: self.0.max_message_bytes }
    }
}

/// How long the rest of a request is read that is refused.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(1);

/// Answers those who do not speak gRPC; a browser or curl shows the body. The
/// request is read first: to answer earlier would cut it off, and hide from its
/// sender that it breaks HTTP/2 where it does.
async fn refuse<B: http_body::Body>(body: B) -> Result<Response<Body>, Infallible> {
    const TEXT: &str = "This is a gRPC server: the content type must be application/grpc.\n";
    let mut body = pin!(body);
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = tokio::time::timeout(REFUSAL_PATIENCE, rest).await;
    let mut response = status::bad_content_type().into_http();
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response.map(|_: Body| Body::new(Full::from(TEXT))))
}

/// Whether the content type is gRPC's with protobuf messages.
fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let essence = value.split(';').next().unwrap_or_default().trim();
    ["application/grpc", "application/grpc+proto"].iter().any(|name| essence.eq_ignore_ascii_case(name))
}

type Served = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

enum Answer {
    Served(Served),
    /// Taken when it is polled.
    Ready(Option<Response<Body>>),
}

/// The answer to come.
pub struct RouterFuture {
    answer: Answer,
    max_message_bytes: usize,
}

impl Future for RouterFuture {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.answer {
            Answer::Ready(response) => {
                Poll::Ready(Ok(response.take().expect("a future is not polled after its end")))
            }
            Answer::Served(future) => {
                let Poll::Ready(Ok(mut response)) = future.as_mut().poll(cx) else { return Poll::Pending };
                // An error that tonic's own code answered is all in the head.
                status::complete(response.headers_mut(), self.max_message_bytes);
                Poll::Ready(Ok(response))
            }
        }
    }
}

#[cfg(test)]
mod tests;
