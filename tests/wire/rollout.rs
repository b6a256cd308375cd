//! Leaving without a failed call, and leaving in time.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use crate::{
    listener_only::until,
    raw_http2::{END_HEADERS, GOAWAY, HEADERS, Peer},
    support::Server,
    support::grpc_client::{GrpcClient, Lost, framed, head},
    tls::wait_for_metric,
};
use futures_util::future::join_all;
use prost::Message;
use tokio::runtime::Builder;
use user_service::proto::user::v1::{CreateUserRequest, User};

const ROLLOUTS: usize = 20;
const CLIENTS: usize = 6;
/// Calls that a client has in flight at once.
const BATCH: usize = 8;

/// Clients that never stop, each on a connection of its own, and go elsewhere when
/// they are told to.
#[derive(Default)]
struct Load {
    servers: Mutex<Vec<SocketAddr>>,
    /// How many calls each client has had answered.
    answered: [AtomicUsize; CLIENTS],
    elsewhere: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Load {
    async fn run(self: Arc<Self>, client: usize) {
        let mut caller = None;
        let mut number = 0;
        loop {
            let Some(connected) = &caller else {
                caller = self.connect().await;
                continue;
            };
            let batch = (0..BATCH).map(|_| {
                number += 1;
                create(connected, format!("{client}.{number}@example.com"))
            });
            for result in join_all(batch).await {
                match result {
                    Ok(0) => _ = self.answered[client].fetch_add(1, Relaxed),
                    Ok(code) => self.failures.lock().unwrap().push(format!("status {code}")),
                    Err(Lost::Failed(error)) => self.failures.lock().unwrap().push(error.to_string()),
                    Err(Lost::Unprocessed) => {
                        // Told to go; made again by the next batch, elsewhere.
                        self.elsewhere.fetch_add(1, Relaxed);
                        caller = None;
                    }
                }
            }
        }
    }

    async fn connect(&self) -> Option<GrpcClient> {
        let newest_first: Vec<_> = self.servers.lock().unwrap().iter().rev().copied().collect();
        for server in newest_first {
            if let Some(caller) = GrpcClient::connect(server).await {
                return Some(caller);
            }
        }
        None
    }

    /// Waits until every client has had an answer that it did not have before.
    fn wait_for_progress(&self) {
        let counts = || self.answered.each_ref().map(|count| count.load(Relaxed));
        let before = counts();
        until("every client is served", || counts().iter().zip(before).all(|(now, before)| *now > before));
    }
}

async fn create(caller: &GrpcClient, email: String) -> Result<i32, Lost> {
    let user = User { name: "Ada".into(), email, ..User::default() };
    let request = CreateUserRequest { user: Some(user), ..CreateUserRequest::default() };
    let head = head("/user.v1.UserService/CreateUser").body(()).unwrap();
    Ok(caller.call(head, framed(&request.encode_to_vec())).await?.code())
}

#[test]
fn no_call_fails_in_twenty_rollouts_under_load() {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let load = Arc::new(Load::default());
    let start = || {
        let server = Server::start(&["--call-log", "false"]);
        load.servers.lock().unwrap().push(server.grpc_addr);
        server
    };
    let mut old = start();
    for client in 0..CLIENTS {
        runtime.spawn(Arc::clone(&load).run(client));
    }
    load.wait_for_progress();
    for rollout in 0..ROLLOUTS {
        let new = start();
        let retired = std::mem::replace(&mut old, new);
        let addr = retired.grpc_addr;
        assert_eq!(retired.stop().code(), Some(0), "rollout {rollout}");
        load.servers.lock().unwrap().retain(|server| *server != addr);
        load.wait_for_progress();
        let failures = load.failures.lock().unwrap();
        assert!(failures.is_empty(), "rollout {rollout}: {failures:?}");
    }
    // Clients that were never on the server that went would show nothing.
    assert!(load.elsewhere.load(Relaxed) >= ROLLOUTS * CLIENTS);
    drop(runtime);
}

#[test]
fn silent_peers_do_not_hold_up_the_end() {
    let server = Server::start(&["--drain-timeout-ms", "500"]);
    let _silent = Peer::silent(server.grpc_addr);
    let mut mute = Peer::connect(server.grpc_addr);
    mute.next();
    wait_for_metric(&server, "grpc_server_connections{state=\"handshake\"}", 1.0);
    // No call was cut, so all is well.
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn calls_that_outlast_the_drain_are_told_by_the_exit_code() {
    let server = Server::start(&["--drain-timeout-ms", "200"]);
    let _peer = with_a_call_that_stays(&server);
    assert_eq!(server.stop().code(), Some(75));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let mut server = Server::start(&[]);
        let mut peer = with_a_call_that_stays(&server);
        server.signal("TERM");
        peer.wait_for(GOAWAY);
        server.signal(signal);
        assert_eq!(server.wait().code(), Some(code), "SIG{signal}");
    }
}

/// A call whose message never comes.
fn with_a_call_that_stays(server: &Server) -> Peer {
    let mut peer = Peer::connect(server.grpc_addr);
    peer.send(HEADERS, END_HEADERS, 1, &crate::raw_http2::head("/user.v1.UserService/CreateUser"));
    let answers = peer.so_far().iter().any(|frame| frame.kind == HEADERS);
    assert!(!answers, "the call has ended");
    peer
}
