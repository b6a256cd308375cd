//! Takes the details off the errors that this project makes itself.
//!
//! Each such error has `google.rpc.ErrorInfo` and often more (docs/API.md). The suite of
//! Connect compares the number of details with what its service was asked for, and an error
//! that the listener or a layer makes was asked for by no request.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use tonic::Status;
use tonic_types::StatusExt;
use tower_service::Service;
use user_service::rpc::status::DOMAIN;

const DETAILS: &str = "grpc-status-details-bin";

/// Around the layers.
#[derive(Clone, Debug)]
pub struct PlainErrors<S>(pub S);

impl<S, B, R> Service<Request<B>> for PlainErrors<S>
where
    S: Service<Request<B>, Response = Response<R>, Future: Send + 'static>,
{
    type Response = Response<PlainErrorsBody<R>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let answered = self.0.call(request);
        Box::pin(async move {
            let mut response = answered.await?;
            strip(response.headers_mut());
            Ok(response.map(|inner| PlainErrorsBody(Box::pin(inner))))
        })
    }
}

/// Removes the details of an error whose `ErrorInfo` has the service's domain.
fn strip(headers: &mut HeaderMap) {
    let details = Status::from_header_map(headers).map(|status| status.get_error_details());
    if details.is_some_and(|details| details.error_info().is_some_and(|info| info.domain == DOMAIN)) {
        headers.remove(DETAILS);
    }
}

/// The body of an answer, which may end with such an error.
pub struct PlainErrorsBody<B>(Pin<Box<B>>);

impl<B: Body> Body for PlainErrorsBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut frame = ready!(self.0.as_mut().poll_frame(cx));
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            strip(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
