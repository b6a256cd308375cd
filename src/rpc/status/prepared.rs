//! Answers that are made once.

use http::{HeaderMap, Response};
use tonic::Status;

/// An answer that is nothing but a status. It is prepared for statuses that are sent in
/// floods, when there is least time to make them.
#[derive(Debug)]
pub struct PreparedAnswer(HeaderMap);

impl PreparedAnswer {
    pub fn of(status: Status) -> Self {
        Self(status.into_http::<()>().into_parts().0.headers)
    }

    pub fn response<R: Default>(&self) -> Response<R> {
        let mut response = Response::new(R::default());
        response.headers_mut().clone_from(&self.0);
        response
    }
}
