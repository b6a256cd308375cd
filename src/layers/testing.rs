//! Calls and answers made by hand, a poll at a time.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tonic::{Code, Status};

use crate::rpc::{
    call::{Call, Inbound},
    methods,
};

pub const UNARY: &str = "/user.v1.UserService/GetUser";
pub const WRITE: &str = "/user.v1.UserService/CreateUser";
pub const STREAM: &str = "/grpc.health.v1.Health/Watch";

/// What a body does when it is polled.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Data(&'static [u8]),
    Trailers(&'static str),
    Hang,
    Panic,
}

/// A body that does one thing after another.
#[derive(Debug, Default)]
pub struct Script(VecDeque<Step>);

impl Script {
    pub fn new(steps: &[Step]) -> Self {
        Self(steps.iter().copied().collect())
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match self.0.front() {
            Some(Step::Hang) => return Poll::Pending,
            Some(Step::Panic) => panic!("a body panics"),
            Some(Step::Data(bytes)) => Some(Frame::data(Bytes::from_static(bytes))),
            Some(Step::Trailers(code)) => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static(code));
                Some(Frame::trailers(trailers))
            }
            None => None,
        };
        self.0.pop_front();
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

/// A call as the router passes it on.
pub fn request(path: &str) -> Request<Inbound<Script>> {
    let request = Request::post(path).body(Script::default()).unwrap();
    Inbound::request(request, Call { method: methods::find(path), ..Call::default() })
}

/// An answer with this body.
pub fn response(steps: &[Step]) -> Response<Script> {
    Response::new(Script::new(steps))
}

/// The status in the head of an answer.
pub fn head<B>(response: &Response<B>) -> Option<Status> {
    Status::from_header_map(response.headers())
}

/// The code that a body ends with; unknown where it has none.
pub async fn end<B: Body<Data = Bytes> + Unpin>(body: B) -> Code {
    let Ok(collected) = body.collect().await else { return Code::Unknown };
    collected.trailers().and_then(Status::from_header_map).map_or(Code::Unknown, |status| status.code())
}
