//! `smoke`: what it tries, and that it leaves nothing behind.

use std::{
    convert::Infallible,
    future,
    io::{self, BufRead, BufReader, Read},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
};

use crate::{
    cli::Cli,
    support::{Server, free_port},
};
use http::Request;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tonic::{Status, transport::Endpoint};
use tower::ServiceExt;
use user_service::{
    config::{Config, StoreUrl},
    domain::StoreHealth,
    feed::Feed,
    proto::user::v1::{ListUsersRequest, User, user_service_client::UserServiceClient},
    rpc::{
        call::{Call, Inbound},
        methods,
    },
    service::{Health, Router, StoreSlot},
    store,
};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn users(addr: SocketAddr) -> Vec<User> {
    block_on(async {
        let channel = Endpoint::from_shared(format!("http://{addr}")).unwrap().connect().await.unwrap();
        let listed = UserServiceClient::new(channel).list_users(ListUsersRequest::default()).await;
        listed.unwrap().into_inner().users
    })
}

/// When a server goes wrong.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    /// The method is refused.
    Before,
    /// The method does its work, and its answer is lost.
    After,
    /// No answer ever comes.
    Silence,
}

/// A server of the real service but for one method. Runs for as long as the tests.
fn faulty(method: &'static str, fault: Fault) -> SocketAddr {
    let (send, addr) = mpsc::channel();
    thread::spawn(move || {
        block_on(async move {
            let config = Config { store_url: StoreUrl::Memory, ..Config::default() };
            let (slot, health) = (StoreSlot::default(), Health::new(&Config::default()));
            let store = store::open(&config).unwrap();
            slot.open(store.clone(), Feed::new(store, config.watch_buffer_bytes));
            health.set_store(StoreHealth { reads: true, writes: true });
            health.set_started(true);
            let router = Router::new(&config, &slot, &health);
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            send.send(listener.local_addr().unwrap()).unwrap();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let router = router.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let found = methods::find(request.uri().path());
                    let request = Inbound::request(request, Call { method: found, ..Call::default() });
                    let is_faulty = found.is_some_and(|found| found.full_name() == method);
                    let router = router.clone();
                    async move {
                        let lost = Status::unavailable("out of order").into_http();
                        Ok::<_, Infallible>(match fault {
                            Fault::Before if is_faulty => lost,
                            Fault::After if is_faulty => {
                                let _ = router.oneshot(request).await;
                                lost
                            }
                            Fault::Silence if is_faulty => future::pending().await,
                            _ => router.oneshot(request).await.unwrap(),
                        })
                    }
                });
                let connection = http2::Builder::new(TokioExecutor::new());
                tokio::spawn(connection.serve_connection(TokioIo::new(socket), service));
            }
        });
    });
    addr.recv().unwrap()
}

#[test]
fn smoke_tries_everything_and_leaves_nothing_behind() {
    let cli = Cli::new();
    let server = Server::start(&[]);
    let smoke = cli.run(&["smoke", &server.grpc_addr.to_string()]);
    assert_eq!(smoke.code, Some(0), "{}{}", smoke.out, smoke.err);
    let steps =
        ["health", "reflection", "create", "get by id", "get by email", "batch get", "list", "update"];
    for step in steps.iter().chain(&["stale etag", "article", "delete", "gone"]) {
        assert!(smoke.out.contains(&format!("ok      {step}: ")), "no {step:?} in:\n{}", smoke.out);
    }
    assert_eq!(users(server.grpc_addr), []);
}

#[test]
fn smoke_says_which_step_failed() {
    let cli = Cli::new();
    let free = format!("127.0.0.1:{}", free_port());
    let nobody = cli.run(&["smoke", &free, "--timeout-ms", "300"]);
    assert_eq!(nobody.code, Some(1), "{}", nobody.err);
    assert!(nobody.out.starts_with("FAILED  connect: "), "{}", nobody.out);

    let server = Server::start(&["--article-api", "false"]);
    let without = cli.run(&["smoke", &server.grpc_addr.to_string()]);
    assert_eq!(without.code, Some(0), "{}", without.out);
    assert!(without.out.contains("ok      article: not served here"), "{}", without.out);
}

#[test]
fn smoke_tries_again_to_connect() {
    let cli = Cli::new();
    let server = Server::start(&[]);
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = door.local_addr().unwrap().to_string();
    let behind = server.grpc_addr;
    let opened = thread::spawn(move || {
        drop(door.accept().unwrap());
        let (outside, _) = door.accept().unwrap();
        let inside = TcpStream::connect(behind).unwrap();
        let (mut from, mut to) = (inside.try_clone().unwrap(), outside.try_clone().unwrap());
        thread::spawn(move || io::copy(&mut from, &mut to));
        let _ = io::copy(&mut &outside, &mut &inside);
    });
    let smoke = cli.run(&["smoke", &addr]);
    assert_eq!(smoke.code, Some(0), "{}{}", smoke.out, smoke.err);
    opened.join().unwrap();
}

#[test]
fn smoke_leaves_nothing_behind_when_a_step_fails() {
    let cases = [
        ("user.v1.UserService/UpdateUser", Fault::Before, "FAILED  update: Unavailable: out of order"),
        ("user.v1.UserService/CreateUser", Fault::After, "FAILED  create: Unavailable: out of order"),
        ("user.v1.UserService/GetUser", Fault::After, "FAILED  get by id: Unavailable: out of order"),
    ];
    for (method, fault, line) in cases {
        let addr = faulty(method, fault);
        let smoke = Cli::new().run(&["smoke", &addr.to_string()]);
        assert_eq!(smoke.code, Some(1), "{method}: {}", smoke.out);
        assert!(smoke.out.contains(line), "{method}: no {line:?} in:\n{}", smoke.out);
        assert!(smoke.out.contains("ok      clean up: "), "{method}: no clean-up in:\n{}", smoke.out);
        assert_eq!(users(addr), [], "{method}");
    }
}

#[test]
fn smoke_says_what_it_could_not_take_away() {
    let addr = faulty("user.v1.UserService/DeleteUser", Fault::Before);
    let smoke = Cli::new().run(&["smoke", &addr.to_string()]);
    assert_eq!(smoke.code, Some(1), "{}", smoke.out);
    let left = users(addr).remove(0).id;
    assert!(
        smoke.out.contains(&format!("FAILED  clean up: the user {left} may be left behind")),
        "{}",
        smoke.out
    );
}

#[test]
fn smoke_leaves_nothing_behind_when_it_is_interrupted() {
    let addr = faulty("user.v1.UserService/UpdateUser", Fault::Silence);
    for signal in ["INT", "TERM"] {
        let mut smoke = Command::new(env!("CARGO_BIN_EXE_user-service"))
            .args(["smoke", &addr.to_string(), "--timeout-ms", "30000"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(smoke.stdout.take().unwrap());
        let mut said = String::new();
        while !said.contains("ok      list: ") {
            assert_ne!(out.read_line(&mut said).unwrap(), 0, "{said}");
        }
        assert_eq!(users(addr).len(), 1, "{said}");
        assert!(
            Command::new("kill").args(["-s", signal, &smoke.id().to_string()]).status().unwrap().success()
        );
        out.read_to_string(&mut said).unwrap();
        assert_eq!(smoke.wait().unwrap().code(), Some(1), "{signal}: {said}");
        assert!(
            said.contains("FAILED  interrupted") && said.contains("ok      clean up: "),
            "{signal}: {said}"
        );
        assert_eq!(users(addr), [], "{signal}: {said}");
    }
}
