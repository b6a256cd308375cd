//! Calls that stop wherever a test wants them to.

use std::{net::SocketAddr, time::Duration};

use http::{Request, Response, Uri, uri::PathAndQuery};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, sync::mpsc, task::JoinHandle, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, body::Body, client::Grpc};
use tonic_prost::ProstCodec;
use tower::{ServiceExt, service_fn, util::BoxCloneService};
use user_service::proto::{
    article::user_service_client::UserServiceClient as ArticleClient,
    health::health_client::HealthClient,
    user::v1::{
        CreateUserRequest, GetUserRequest, GetUserResponse, User, get_user_request,
        user_service_client::UserServiceClient,
    },
};

use crate::support::TEST_TIMEOUT;

pub const GET_USER: &str = "/user.v1.UserService/GetUser";

/// Sends requests as they are. tonic's own channel would act on `grpc-timeout` itself.
type Service = BoxCloneService<Request<Body>, Response<Incoming>, hyper::Error>;

/// A connection to make calls on.
#[derive(Clone)]
pub struct HeldCalls {
    service: Service,
    origin: Uri,
}

impl HeldCalls {
    pub async fn connect(addr: SocketAddr) -> Self {
        Self::with_window(addr, 64 * 1_024).await
    }

    /// A connection on which each answer may have this many bytes before its caller takes them.
    pub async fn with_window(addr: SocketAddr, bytes: u32) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        // Headers and message are two writes: the second must not wait for an acknowledgement.
        stream.set_nodelay(true).unwrap();
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2.initial_stream_window_size(bytes);
        let (sender, connection) = http2.handshake(TokioIo::new(stream)).await.unwrap();
        drop(tokio::spawn(connection));
        let service = service_fn(move |request| {
            let mut sender: http2::SendRequest<Body> = sender.clone();
            async move { sender.send_request(request).await }
        });
        let origin = Uri::builder().scheme("http").authority(addr.to_string()).path_and_query("/");
        Self { service: service.boxed_clone(), origin: origin.build().unwrap() }
    }

    pub fn users(&self) -> UserServiceClient<Service> {
        UserServiceClient::with_origin(self.service.clone(), self.origin.clone())
    }

    /// Under the article's contract.
    pub fn article(&self) -> ArticleClient<Service> {
        ArticleClient::with_origin(self.service.clone(), self.origin.clone())
    }

    pub fn health(&self) -> HealthClient<Service> {
        HealthClient::with_origin(self.service.clone(), self.origin.clone())
    }

    /// Begins a call with these metadata and sends no message yet, so that the
    /// server waits within the call.
    pub fn open(&self, path: &'static str, metadata: &[(&'static str, &str)]) -> Open {
        let (sender, messages) = mpsc::channel(1);
        let mut request = tonic::Request::new(ReceiverStream::new(messages));
        for (key, value) in metadata {
            request.metadata_mut().insert(*key, value.parse().unwrap());
        }
        let mut grpc = Grpc::with_origin(self.service.clone(), self.origin.clone());
        let answer = tokio::spawn(async move {
            grpc.ready().await.unwrap();
            let codec = ProstCodec::<GetUserRequest, GetUserResponse>::default();
            grpc.client_streaming(request, PathAndQuery::from_static(path), codec).await
        });
        Open { sender, answer }
    }

    /// A call to a path and with metadata that nobody else has, to the end of its head.
    pub async fn made_up(&self, number: usize) {
        let path = match number % 3 {
            0 => format!("{}made-up.v{number}.Service/Method{number}", self.origin),
            1 => format!("{}user.v1.UserService/GetUser{number}", self.origin),
            _ => format!("{}{number}", self.origin),
        };
        let request = Request::post(path)
            .header("content-type", "application/grpc")
            .header(format!("x-made-up-{number}"), number)
            .header("user-agent", format!("caller/{number}"))
            .header("tracestate", format!("k{number}=v"));
        let answer = self.service.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], "12");
    }

    /// The same with a message for a user who is not there, to its end.
    pub async fn call(&self, path: &'static str, metadata: &[(&'static str, &str)]) -> Status {
        let open = self.open(path, metadata);
        open.finish().await
    }
}

/// A call whose answer is not taken, so that it keeps its place until it is aborted.
/// Somebody has to be there for it: an error needs no window.
pub async fn hold(addr: SocketAddr) -> JoinHandle<()> {
    let caller = HeldCalls::with_window(addr, 0).await;
    let user = User { name: "Ada".into(), email: "held@example.com".into(), ..User::default() };
    let create =
        CreateUserRequest { user_id: "held".into(), user: Some(user), ..CreateUserRequest::default() };
    HeldCalls::connect(addr).await.users().create_user(create).await.unwrap();
    tokio::spawn(async move {
        let held = GetUserRequest { key: Some(get_user_request::Key::Id("held".into())) };
        let answer = caller.users().get_user(held).await;
        panic!("the answer has come: {answer:?}");
    })
}

/// A call whose message has not been sent.
pub struct Open {
    sender: mpsc::Sender<GetUserRequest>,
    answer: JoinHandle<Result<tonic::Response<GetUserResponse>, Status>>,
}

impl Open {
    /// Sends the message and waits for the end.
    pub async fn finish(self) -> Status {
        // A call that was refused does not read it.
        let _ = self.sender.send(nobody()).await;
        drop(self.sender);
        ended(self.answer).await
    }

    /// Sends nothing and waits for the server to end it.
    pub async fn wait(self) -> Status {
        let status = ended(self.answer).await;
        drop(self.sender);
        status
    }
}

async fn ended(answer: JoinHandle<Result<tonic::Response<GetUserResponse>, Status>>) -> Status {
    match timeout(TEST_TIMEOUT, answer).await.expect("every call ends in time").unwrap() {
        Ok(_) => Status::new(Code::Ok, ""),
        Err(status) => status,
    }
}

/// Asks for a user who is not there.
pub fn nobody() -> GetUserRequest {
    GetUserRequest { key: Some(get_user_request::Key::Id("nobody".into())) }
}

/// Looks again and again until `look` finds something.
pub async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let mut pauses = tokio::time::interval(Duration::from_millis(5));
    let found = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            pauses.tick().await;
        }
    };
    timeout(TEST_TIMEOUT, found).await.expect("it comes to pass in time")
}
