//! What `import` and `export` do when a server refuses their calls and says when to come again.

use std::{
    future::pending,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, Request, Response};
use prost::Message;
use tokio::{
    net::{TcpListener, TcpStream},
    task::block_in_place,
};
use tonic::Status;
use user_service::{
    proto::user::v1::{
        ImportUsersResponse, ListUsersResponse, User, import_users_response::Result as ImportResult,
    },
    rpc::status,
};

use crate::cli::Cli;

/// A pause that no backoff of a command makes: its first ones are of 100 and 200 ms.
const DELAY: Duration = Duration::from_millis(700);

/// What the server knows of its calls.
#[derive(Default)]
struct Calls {
    refusals: Vec<Status>,
    /// How long each call came after the refusal before it.
    pauses: Vec<Duration>,
    refused_at: Option<Instant>,
}

/// A server that refuses a call with each of these, and answers the ones after them.
struct RefusingServer {
    addr: SocketAddr,
    calls: Arc<Mutex<Calls>>,
}

impl RefusingServer {
    async fn start(mut refusals: Vec<Status>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        refusals.reverse();
        let calls = Arc::new(Mutex::new(Calls { refusals, ..Calls::default() }));
        let shared = Arc::clone(&calls);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, Arc::clone(&shared)));
            }
        });
        Self { addr, calls }
    }

    fn pauses(&self) -> Vec<Duration> {
        self.calls.lock().unwrap().pauses.clone()
    }
}

async fn serve(socket: TcpStream, calls: Arc<Mutex<Calls>>) {
    let Ok(mut connection) = h2::server::handshake(socket).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        if let Some(refusal) = calls.lock().unwrap().next_refusal() {
            respond.send_response(refusal.into_http(), true).unwrap();
        } else {
            tokio::spawn(answer(request, respond));
        }
    }
}

impl Calls {
    fn next_refusal(&mut self) -> Option<Status> {
        if let Some(refused_at) = self.refused_at.take() {
            self.pauses.push(refused_at.elapsed());
        }
        let refusal = self.refusals.pop()?;
        self.refused_at = Some(Instant::now());
        Some(refusal)
    }
}

async fn answer(mut request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut body = respond.send_response(response, false).unwrap();
    // An import sends its users once it has the head of the answer.
    request.body_mut().data().await.unwrap().unwrap();
    let message = if request.uri().path().ends_with("/ImportUsers") {
        let result = Some(ImportResult::Created(User::default()));
        ImportUsersResponse { index: 0, result }.encode_to_vec()
    } else {
        ListUsersResponse::default().encode_to_vec()
    };
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.len()).unwrap());
    bytes.put_slice(&message);
    body.send_data(bytes.freeze(), false).unwrap();
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
    body.send_trailers(trailers).unwrap();
}

/// Whether each of these commands comes again after the delay, and succeeds in the end.
async fn comes_again(refusal: fn() -> Status, at_least: Duration) {
    let cli = Cli::new();
    let user = r#"{"id":"ada","name":"Ada","email":"ada@example.com","age":36}"#;
    std::fs::write(cli.path().join("users.jsonl"), user).unwrap();
    for command in [&["export"][..], &["import", "users.jsonl"]] {
        let server = RefusingServer::start(vec![refusal(), refusal()]).await;
        let addr = server.addr.to_string();
        let args = [command, &["--server", &addr]].concat();
        let finished = block_in_place(|| cli.run(&args));
        assert_eq!(finished.code, Some(0), "{command:?}: {}", finished.err);
        let pauses = server.pauses();
        assert_eq!(pauses.len(), 2, "{command:?}");
        assert!(pauses.iter().all(|pause| *pause >= at_least), "{command:?}: {pauses:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_comes_again_no_sooner_than_an_overloaded_server_asks_for() {
    comes_again(|| status::overloaded_for(DELAY), DELAY).await;
}

/// Takes connections and, once `greets` has sent its SETTINGS, says nothing.
async fn silent_server(greets: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let socket =
                    if greets { Ok(h2::server::handshake(socket).await.unwrap()) } else { Err(socket) };
                pending::<()>().await;
                drop(socket);
            });
        }
    });
    addr
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_nothing_is_given_up_when_the_time_is_up() {
    let cli = Cli::new();
    let user = r#"{"id":"ada","name":"Ada","email":"ada@example.com","age":36}"#;
    std::fs::write(cli.path().join("users.jsonl"), user).unwrap();
    for greets in [false, true] {
        let addr = silent_server(greets).await.to_string();
        for command in [&["export"][..], &["import", "users.jsonl"]] {
            let args = [command, &["--server", &addr, "--retry-timeout-ms", "1500"]].concat();
            let began = Instant::now();
            let finished = block_in_place(|| cli.run(&args));
            let took = began.elapsed();
            assert_eq!(finished.code, Some(1), "{command:?}: {}", finished.err);
            assert!(finished.err.contains("gave up after 1500 ms"), "{command:?}: {}", finished.err);
            let expected = Duration::from_millis(1_500)..Duration::from_millis(4_500);
            assert!(expected.contains(&took), "{command:?}, {greets}: {took:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_over_its_callers_share_calls_again_after_the_delay() {
    comes_again(status::over_quota, Duration::from_secs(1)).await;
}
