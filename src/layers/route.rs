//! Finds the method that a call is for, once, for every layer below.

use std::task::{Context, Poll};

use http::{Request, Uri};
use tower_service::Service;

use crate::rpc::{call::Inbound, methods::Method};

/// Finds the method that is served under exactly a path.
pub type FindMethod = fn(&str) -> Option<&'static Method>;

/// Sets the matched method in the call.
#[derive(Clone, Debug)]
pub struct Route<S> {
    inner: S,
    find: FindMethod,
}

impl<S> Route<S> {
    pub fn new(inner: S, find: FindMethod) -> Self {
        Self { inner, find }
    }
}

impl<S, B> Service<Request<Inbound<B>>> for Route<S>
where
    S: Service<Request<Inbound<B>>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Inbound<B>>) -> S::Future {
        request.body_mut().call.method = matched(request.method(), request.uri(), self.find);
        self.inner.call(request)
    }
}

/// A path with a query is another path: nothing is served under it.
pub fn matched(method: &http::Method, uri: &Uri, find: FindMethod) -> Option<&'static Method> {
    if *method != http::Method::POST || uri.query().is_some() {
        return None;
    }
    find(uri.path())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::methods;

    fn found(method: &str, uri: &str) -> Option<&'static str> {
        let request = Request::builder().method(method).uri(uri).body(()).unwrap();
        matched(request.method(), request.uri(), methods::find).map(|method| method.path)
    }

    #[test]
    fn only_a_post_to_exactly_the_path_matches() {
        let path = "/user.v1.UserService/GetUser";
        assert_eq!(found("POST", path), Some(path));
        assert_eq!(found("POST", "http://example.test/user.v1.UserService/GetUser"), Some(path));
        assert_eq!(found("GET", path), None);
        for other in ["/", "?", "?x=1", "%20"] {
            assert_eq!(found("POST", &format!("{path}{other}")), None, "with {other:?}");
        }
        assert_eq!(found("POST", "//user.v1.UserService/GetUser"), None);
        assert_eq!(found("POST", "/user.v1.UserService/getuser"), None);
    }
}
