//! Requests that never end, and those that are given up.

use bytes::Bytes;
use prost::Message;
use serde_json::json;
use tokio::runtime::Runtime;
use user_service::proto::user::v1::{CreateUserRequest, User};

use crate::{
    listener_only::until,
    raw_http2::{DATA, END_HEADERS, END_STREAM, HEADERS, Peer, RST_STREAM, head, head_of},
    support::{
        Server,
        grpc_client::{self, GrpcClient, framed},
        http::{ask, sum},
        web_client::WebClient,
    },
};

const GET: &str = "/user.v1.UserService/GetUser";
const LIST: &str = "/user.v1.UserService/ListUsers";
const CREATE: &str = "/user.v1.UserService/CreateUser";

/// Begins calls and announces a message of one byte in each, which does not come.
fn hoard(peer: &mut Peer, streams: u32, path: &str) {
    for stream in (0..streams).map(|n| 2 * n + 1) {
        peer.send(HEADERS, END_HEADERS, stream, &head(path));
        peer.send(DATA, 0, stream, &[0, 0, 0, 0, 1]);
    }
    let answers = peer.so_far().into_iter().filter(|frame| frame.kind == HEADERS).count();
    assert_eq!(answers, 0, "none is turned away");
}

#[test]
fn requests_that_never_end_keep_nobody_out() {
    let server = Server::start(&["--max-unary-calls", "4", "--store-queue", "3", "--call-log", "false"]);
    let mut hoarders = [Peer::connect(server.grpc_addr), Peer::connect(server.grpc_addr)];
    hoard(&mut hoarders[0], 50, GET);
    hoard(&mut hoarders[1], 50, CREATE);
    let mut honest = Peer::connect(server.grpc_addr);
    for stream in (1..20).step_by(2) {
        honest.send(HEADERS, END_HEADERS, stream, &head(LIST));
        honest.send(DATA, END_STREAM, stream, &[0; 5]);
        // Turned away it would be all in its head.
        assert_eq!(honest.wait_for(HEADERS).flags & END_STREAM, 0, "the call was turned away");
        honest.wait_for_answer(stream);
    }
}

/// A client may reset a request at any time, and Node's `destroy()` does so with `NO_ERROR`.
/// Until `END_STREAM` nothing says that what has come is all of it.
#[test]
fn a_request_that_is_given_up_is_not_executed() {
    const REASONS: [u32; 2] = [0, 8]; // NO_ERROR, CANCEL
    let server = Server::start(&[]);
    let mut peer = Peer::connect(server.grpc_addr);
    let user = User { name: "Ada".into(), email: "ada@example.com".into(), ..User::default() };
    let message = CreateUserRequest { user: Some(user), ..CreateUserRequest::default() }.encode_to_vec();
    let bodies = [("application/grpc", framed(&message).to_vec()), ("application/proto", message)];
    let mut stream = 1;
    for reason in REASONS {
        for (content_type, body) in &bodies {
            peer.send(HEADERS, END_HEADERS, stream, &head_of(CREATE, content_type));
            peer.send(DATA, 0, stream, body);
            peer.send(RST_STREAM, 0, stream, &reason.to_be_bytes());
            stream += 2;
        }
    }
    let ended = |labels: &[&str]| {
        let page = ask(server.admin_addr, "GET /metrics").body;
        sum(&page, "grpc_server_handled_total", &[&["grpc_method=\"CreateUser\""], labels].concat())
    };
    until("each call has ended", || ended(&[]) > 3.5);
    assert!(ended(&["grpc_code=\"Canceled\""]) > 3.5, "{}", ask(server.admin_addr, "GET /metrics").body);
    let listed = WebClient::connect(server.grpc_addr).json("ListUsers", "{}").value();
    assert_eq!(listed, json!({}));
}

#[test]
fn a_message_larger_than_all_that_are_on_their_way_may_be_is_taken_alone() {
    const LIMIT: usize = 36 << 20;
    let limit = LIMIT.to_string();
    let server = Server::start(&["--max-request-bytes", &limit, "--default-timeout-ms", "60000"]);
    // ListUsers with a field that it does not know.
    let large = |len: usize| {
        let mut message = vec![0x7a];
        prost::encoding::encode_varint(len as u64, &mut message);
        message.resize(message.len() + len, 0);
        framed(&message)
    };
    let grpc = |body: Bytes| {
        Runtime::new().unwrap().block_on(async {
            let client = GrpcClient::connect(server.grpc_addr).await.unwrap();
            client.call(grpc_client::head(LIST).body(()).unwrap(), body).await.unwrap().code()
        })
    };
    assert_eq!(grpc(large(LIMIT - 10)), 0);
    assert_eq!(grpc(large(LIMIT)), 8, "RESOURCE_EXHAUSTED");

    let client = WebClient::connect(server.grpc_addr);
    let json = |len: usize| client.json("ListUsers", &format!("{{{}}}", " ".repeat(len - 2)));
    assert_eq!(json(LIMIT).value(), json!({}));
    assert_eq!(json(LIMIT + 1).error(), (429, "resource_exhausted".into(), "MESSAGE_TOO_LARGE".into()));
}
