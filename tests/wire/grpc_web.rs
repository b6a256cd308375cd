//! gRPC-Web over plain HTTP: binary, text and JSON.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use prost::Message;
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use user_service::proto::user::v1::{
    CreateUserRequest, CreateUserResponse, GetUserRequest, GetUserResponse, User, WatchUsersRequest,
    WatchUsersResponse, get_user_request::Key, watch_users_response::Event,
};

use crate::support::{
    Server,
    grpc_client::{framed, prefixed},
    web_client::{FrameStream, WebClient, Whole, frames, gzip, post},
};

const GET_USER: &str = "/user.v1.UserService/GetUser";
const CREATE_USER: &str = "/user.v1.UserService/CreateUser";
const WATCH_USERS: &str = "/user.v1.UserService/WatchUsers";
const TRAILERS: u8 = 0x80;

fn started(args: &[&str]) -> (Server, WebClient) {
    let server = Server::start(args);
    let client = WebClient::connect(server.grpc_addr);
    (server, client)
}

fn get(email: &str) -> Vec<u8> {
    GetUserRequest { key: Some(Key::Email(email.into())) }.encode_to_vec()
}

fn create(name: &str) -> Vec<u8> {
    let user = User { name: name.into(), email: format!("{name}@example.com"), ..User::default() };
    CreateUserRequest { user: Some(user), ..CreateUserRequest::default() }.encode_to_vec()
}

/// The trailers in the last frame of a body.
#[track_caller]
fn trailers(frame: &(u8, Vec<u8>)) -> HeaderMap {
    assert_eq!(frame.0, TRAILERS, "{frame:?}");
    let text = std::str::from_utf8(&frame.1).unwrap();
    let lines = text.split_terminator("\r\n").map(|line| line.split_once(": ").expect("name and value"));
    lines.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

/// The error of an answer without a message, which is all in its head.
#[track_caller]
fn error(answer: &Whole) -> (Code, String) {
    assert_eq!((answer.status, answer.body.len()), (200, 0), "{answer:?}");
    let status = Status::from_header_map(&answer.headers).expect("a status");
    (status.code(), status.get_error_details().error_info().expect("a reason").reason.clone())
}

#[test]
fn a_message_and_its_trailers_are_frames_of_the_body() {
    let (_server, client) = started(&[]);
    for content_type in ["application/grpc-web", "application/grpc-web+proto"] {
        let name = content_type.rsplit(['/', '+']).next().unwrap();
        let made = client.post(CREATE_USER, content_type, framed(&create(name))).with_status(StatusCode::OK);
        assert_eq!(made.headers["content-type"], content_type);
        assert!(made.trailers.is_none(), "browsers do not show them: {made:?}");
        let [(0, message), last] = &frames(&made.body)[..] else { panic!("{made:?}") };
        assert_eq!(CreateUserResponse::decode(&message[..]).unwrap().user.unwrap().name, name);
        assert_eq!(trailers(last)["grpc-status"], "0");
    }
    let read = prefixed(
        1,
        u32::try_from(gzip(&get("proto@example.com")).len()).unwrap(),
        &gzip(&get("proto@example.com")),
    );
    let packed = post(GET_USER, "application/grpc-web").header("grpc-encoding", "gzip");
    assert_eq!(frames(&client.ask(packed.body(read).unwrap()).body).len(), 2);
}

#[test]
fn text_is_base64_that_may_be_padded_in_its_midst() {
    let (_server, client) = started(&[]);
    let framed = framed(&create("text"));
    let (head, tail) = framed.split_at(7);
    let body = STANDARD.encode(head) + &STANDARD.encode(tail);
    assert!(body.find('=').unwrap() < body.len() - 4, "{body} is padded in its midst");
    let made = client.post(CREATE_USER, "application/grpc-web-text", body).with_status(StatusCode::OK);
    assert_eq!(made.headers["content-type"], "application/grpc-web-text");
    let mut bytes = Vec::new();
    for piece in std::str::from_utf8(&made.body).unwrap().split_inclusive('=') {
        // A second character of padding is a piece without text.
        match piece {
            "=" => {}
            piece => bytes
                .extend(STANDARD.decode(format!("{piece:=<0$}", piece.len().next_multiple_of(4))).unwrap()),
        }
    }
    let [(0, message), last] = &frames(&bytes)[..] else { panic!("{bytes:?}") };
    assert_eq!(CreateUserResponse::decode(&message[..]).unwrap().user.unwrap().name, "text");
    assert_eq!(trailers(last)["grpc-status"], "0");
    let broken = client.post(GET_USER, "application/grpc-web-text", "****");
    assert_eq!(error(&broken), (Code::Internal, "MALFORMED_MESSAGE".into()));
    let cut = client.post(GET_USER, "application/grpc-web-text", "AAA");
    assert_eq!(error(&cut), (Code::Internal, "MALFORMED_MESSAGE".into()));
}

#[test]
fn errors_are_those_of_grpc() {
    let (_server, client) = started(&["--max-request-bytes", "2048"]);
    let ask = |path: &str, body: Bytes| error(&client.post(path, "application/grpc-web+proto", body));
    assert_eq!(ask(GET_USER, framed(&get("no@example.com"))), (Code::NotFound, "USER_NOT_FOUND".into()));
    assert_eq!(ask(GET_USER, Bytes::new()), (Code::Unimplemented, "MISSING_MESSAGE".into()));
    assert_eq!(ask(GET_USER, framed(&[0; 3_000])), (Code::ResourceExhausted, "MESSAGE_TOO_LARGE".into()));
    assert_eq!(
        ask("/user.v1.UserService/Nothing", framed(&[])),
        (Code::Unimplemented, "UNKNOWN_METHOD".into())
    );
    assert_eq!(ask("/nowhere", framed(&[])), (Code::Unimplemented, "UNKNOWN_METHOD".into()));
    let late = post(GET_USER, "application/grpc-web").header("grpc-timeout", "0n");
    let late = client.ask(late.body(framed(&get("no@example.com"))).unwrap());
    assert_eq!(error(&late), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED".into()));
    client.post(GET_USER, "application/grpc-web+thrift", "").with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[test]
fn a_watch_streams_until_the_drain_ends_it_with_its_token() {
    let (mut server, client) = started(&["--drain-timeout-ms", "10000"]);
    let watch = WatchUsersRequest { initial_state: true, ..WatchUsersRequest::default() }.encode_to_vec();
    let response = client.begin(post(WATCH_USERS, "application/grpc-web").body(framed(&watch)).unwrap());
    let mut events = FrameStream::of(&client, response);
    let caught_up = WatchUsersResponse::decode(events.next().unwrap().1).unwrap();
    assert!(matches!(caught_up.event, Some(Event::CaughtUp(_))));
    client.post(CREATE_USER, "application/grpc-web", framed(&create("eve")));
    let created = WatchUsersResponse::decode(events.next().unwrap().1).unwrap();
    assert!(matches!(created.event, Some(Event::Created(user)) if user.name == "eve"));
    server.signal("TERM");
    let (flag, end) = events.next().unwrap();
    let end = Status::from_header_map(&trailers(&(flag, end.to_vec()))).unwrap();
    assert_eq!(end.code(), Code::Unavailable);
    assert!(end.get_error_details().error_info().unwrap().metadata.contains_key("resume_token"));
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn json_is_framed_for_grpc_and_for_grpc_web() {
    let (_server, client) = started(&[]);
    let user =
        |name: &str| json!({ "user": { "name": name, "email": format!("{name}@example.com") } }).to_string();
    let made = client.post(CREATE_USER, "application/grpc-web+json", framed(user("web").as_bytes()));
    let [(0, message), last] = &frames(&made.body)[..] else { panic!("{made:?}") };
    assert_eq!(serde_json::from_slice::<Value>(message).unwrap()["user"]["name"], "web");
    assert_eq!(trailers(last)["grpc-status"], "0");
    let made = client.post(CREATE_USER, "application/grpc+json", framed(user("grpc").as_bytes()));
    assert_eq!(
        (&made.headers["content-type"], &made.trailers.as_ref().unwrap()["grpc-status"]),
        (&"application/grpc+json".parse().unwrap(), &"0".parse().unwrap(),)
    );
    let [(0, message)] = &frames(&made.body)[..] else { panic!("{made:?}") };
    assert_eq!(serde_json::from_slice::<Value>(message).unwrap()["user"]["name"], "grpc");
    let bad = client.post(CREATE_USER, "application/grpc-web+json", framed(b"{"));
    assert_eq!(error(&bad), (Code::InvalidArgument, "MALFORMED_JSON".into()));
}

#[test]
fn protocols_that_are_left_out_are_refused() {
    let (_server, client) = started(&["--web-protocols", "grpc_web"]);
    let ask = |content_type: &str, body: Bytes| client.post(GET_USER, content_type, body);
    assert_eq!(error(&ask("application/grpc-web", framed(&get("no@example.com")))).0, Code::NotFound);
    let refused = ask("application/json", "{}".into()).with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(!refused.header("accept-post").unwrap().contains("json, application/json"), "{refused:?}");
    let uri = format!("http://test{GET_USER}?encoding=json&message=%7B%7D");
    let read = client.ask(Request::get(uri).body(Bytes::new()).unwrap());
    assert_eq!(read.with_status(StatusCode::METHOD_NOT_ALLOWED).header("allow"), Some("POST"));

    let (_server, client) = started(&["--web-protocols", "none"]);
    for content_type in ["application/grpc-web", "application/json"] {
        client.post(GET_USER, content_type, "").with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let grpc = client.post(GET_USER, "application/grpc", framed(&get("no@example.com")));
    assert_eq!(error(&grpc).0, Code::NotFound);
}

#[test]
fn an_answer_in_protobuf_is_read_back() {
    let (_server, client) = started(&[]);
    client.post(CREATE_USER, "application/grpc-web", framed(&create("ann")));
    let read = client.post(GET_USER, "application/grpc-web", framed(&get("ann@example.com")));
    let user = GetUserResponse::decode(&frames(&read.body)[0].1[..]).unwrap().user.unwrap();
    assert_eq!(user.name, "ann");
}
