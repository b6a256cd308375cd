//! Connect and gRPC-Web over HTTP/1.1, as curl and many proxies speak it.

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    Server,
    grpc_client::framed,
    web_client::{FrameStream, WebClient, code_and_reason, frames, gunzip, post},
};

const GET_USER: &str = "/user.v1.UserService/GetUser";
const WATCH_USERS: &str = "/user.v1.UserService/WatchUsers";
const IMPORT_USERS: &str = "/user.v1.UserService/ImportUsers";

fn started(args: &[&str]) -> (Server, WebClient) {
    let server = Server::start(args);
    let client = WebClient::connect_http1(server.grpc_addr);
    (server, client)
}

fn user(name: &str) -> String {
    json!({ "user": { "name": name, "email": format!("{name}@example.com") } }).to_string()
}

#[test]
fn unary_calls_share_a_connection_that_lasts() {
    let (_server, client) = started(&[]);
    let made = client.json("CreateUser", &user("ada")).with_status(StatusCode::OK).value();
    let missing = client.json("GetUser", r#"{"id":"nobody"}"#);
    assert_eq!(missing.error(), (404, "not_found".into(), "USER_NOT_FOUND".into()));
    client.json("GetUser", "{").with_status(StatusCode::BAD_REQUEST);
    client.post(GET_USER, "text/html", "<p>").with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let late = post(GET_USER, "application/json").header("connect-timeout-ms", "0");
    client.ask(late.body("{}".into()).unwrap()).with_status(StatusCode::GATEWAY_TIMEOUT);
    let id = made["user"]["id"].as_str().unwrap();
    let uri = format!("http://test{GET_USER}?connect=v1&encoding=json&message=%7B%22id%22:%22{id}%22%7D");
    let read = client.ask(Request::get(uri).body(Bytes::new()).unwrap()).with_status(StatusCode::OK);
    assert_eq!(read.value(), made);
    for number in 0..20 {
        client.json("CreateUser", &user(&format!("user{number}"))).with_status(StatusCode::OK);
    }
    let packed = post("/user.v1.UserService/ListUsers", "application/json").header("accept-encoding", "gzip");
    let packed = client.ask(packed.body("{}".into()).unwrap()).with_status(StatusCode::OK);
    let listed: Value = serde_json::from_slice(&gunzip(&packed.body)).unwrap();
    assert_eq!(listed["users"].as_array().unwrap().len(), 21);
}

#[test]
fn a_message_over_the_limit_is_refused() {
    let (_server, client) = started(&["--max-request-bytes", "2048"]);
    let long = json!({ "id": "a".repeat(3_000) }).to_string();
    assert_eq!(client.json("GetUser", &long).error().2, "MESSAGE_TOO_LARGE");
}

#[test]
fn a_watch_streams_until_the_drain_ends_it_with_its_token() {
    let (mut server, client) = started(&["--drain-timeout-ms", "10000"]);
    let other = WebClient::connect_http1(server.grpc_addr);
    let watch =
        post(WATCH_USERS, "application/connect+json").body(framed(br#"{"initialState":true}"#)).unwrap();
    let mut events = FrameStream::of(&client, client.begin(watch));
    let mut event = || -> (u8, Value) {
        let (flag, message) = events.next().expect("the stream goes on");
        (flag, serde_json::from_slice(&message).unwrap())
    };
    assert!(event().1["caughtUp"].is_object());
    let made = other.json("CreateUser", &user("eve")).with_status(StatusCode::OK).value();
    assert_eq!(event().1["created"], made["user"]);
    server.signal("TERM");
    let (flag, end) = event();
    assert_eq!((flag, code_and_reason(&end["error"])), (2, ("unavailable".into(), "DRAINING".into())));
    assert_eq!(events.next(), None);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn an_import_is_answered_once_all_of_it_was_sent() {
    let (_server, client) = started(&[]);
    let body = [framed(user("ann").as_bytes()), framed(user("ben").as_bytes())].concat();
    let answer = client.post(IMPORT_USERS, "application/connect+json", body).with_status(StatusCode::OK);
    let frames = frames(&answer.body);
    assert_eq!((frames.len(), &*frames[2].1), (3, &b"{}"[..]), "{frames:?}");
}

#[test]
fn grpc_web_has_its_trailers_in_the_body_and_grpc_needs_http_2() {
    let (_server, client) = started(&[]);
    let web = client.post("/user.v1.UserService/ListUsers", "application/grpc-web", framed(&[]));
    let frames = frames(&web.with_status(StatusCode::OK).body);
    assert_eq!((frames.len(), frames[1].0), (2, 0x80), "{frames:?}");
    for content_type in ["application/grpc", "application/grpc+proto", "application/grpc+json"] {
        let grpc = client.post(GET_USER, content_type, framed(&[]));
        let text = grpc.with_status(StatusCode::HTTP_VERSION_NOT_SUPPORTED).body;
        assert!(text.starts_with(b"gRPC needs HTTP/2."), "{text:?}");
    }
}
