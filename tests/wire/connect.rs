//! Connect over plain HTTP: unary calls, errors, GET, gzip and streams.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Request, StatusCode};
use prost::Message;
use serde_json::{Value, json};
use user_service::proto::user::v1::{
    CreateUserResponse, GetUserRequest, GetUserResponse, get_user_request::Key,
};

use crate::support::{
    Server,
    grpc_client::framed,
    http::{ask, sum},
    web_client::{FrameStream, WebClient, Whole, code_and_reason, frames, gunzip, gzip, post},
};

const GET_USER: &str = "/user.v1.UserService/GetUser";
const CREATE_USER: &str = "/user.v1.UserService/CreateUser";
const WATCH_USERS: &str = "/user.v1.UserService/WatchUsers";
const IMPORT_USERS: &str = "/user.v1.UserService/ImportUsers";

fn started(args: &[&str]) -> (Server, WebClient) {
    let server = Server::start(args);
    let client = WebClient::connect(server.grpc_addr);
    (server, client)
}

/// Creates a user with this name, and returns it.
#[track_caller]
fn created(client: &WebClient, name: &str) -> Value {
    let user = json!({ "user": { "name": name, "email": format!("{name}@example.com") } });
    let answer = client.json("CreateUser", &user.to_string()).with_status(StatusCode::OK);
    assert_eq!(answer.headers["content-type"], "application/json");
    answer.value()["user"].clone()
}

/// A call by GET with this query.
fn get(client: &WebClient, path: &str, query: &str) -> Whole {
    client.ask(Request::get(format!("http://test{path}?{query}")).body(bytes::Bytes::new()).unwrap())
}

#[test]
fn a_user_is_created_and_read_in_json_and_in_protobuf() {
    let (_server, client) = started(&[]);
    let ada = created(&client, "ada");
    assert!(ada["createTime"].as_str().unwrap().ends_with('Z'), "RFC 3339: {ada}");
    let id = ada["id"].as_str().unwrap();
    let read = client.json("GetUser", &json!({ "id": id }).to_string()).with_status(StatusCode::OK);
    assert_eq!(read.value()["user"], ada);
    // A field by the name that it has in the file, and one that the message does not have.
    let updated = json!({
        "user": { "id": id, "name": "Ada Lovelace" }, "update_mask": "name", "addedLater": { "deep": [1] },
    });
    let updated = client.json("UpdateUser", &updated.to_string()).with_status(StatusCode::OK).value();
    assert_eq!(
        (&updated["user"]["name"], &updated["user"]["email"]),
        (&json!("Ada Lovelace"), &ada["email"])
    );

    let request = GetUserRequest { key: Some(Key::Id(id.into())) }.encode_to_vec();
    let answer = client.post(GET_USER, "application/proto", request).with_status(StatusCode::OK);
    assert_eq!(answer.headers["content-type"], "application/proto");
    let user = GetUserResponse::decode(answer.body).unwrap().user.unwrap();
    assert_eq!((user.id.as_str(), user.name.as_str()), (id, "Ada Lovelace"));
}

#[test]
fn an_error_has_the_http_status_of_its_code_and_the_details_of_grpc() {
    let (_server, client) = started(&[]);
    let missing = client.json("GetUser", r#"{"id":"nobody"}"#);
    assert_eq!(missing.error(), (404, "not_found".into(), "USER_NOT_FOUND".into()));
    let grpc = client.post(
        GET_USER,
        "application/grpc",
        framed(&GetUserRequest { key: Some(Key::Id("nobody".into())) }.encode_to_vec()),
    );
    let trailer = base64::engine::general_purpose::STANDARD_NO_PAD
        .decode(grpc.header("grpc-status-details-bin").unwrap().trim_end_matches('='))
        .unwrap();
    let status = tonic_types::Status::decode(&trailer[..]).unwrap();
    let details: Vec<_> = missing.value()["details"]
        .as_array()
        .unwrap()
        .iter()
        .map(|detail| {
            let value = detail["value"].as_str().unwrap();
            let value = base64::engine::general_purpose::STANDARD_NO_PAD.decode(value).expect("no padding");
            (format!("type.googleapis.com/{}", detail["type"].as_str().unwrap()), value)
        })
        .collect();
    let of_grpc: Vec<_> = status.details.into_iter().map(|detail| (detail.type_url, detail.value)).collect();
    assert_eq!(details, of_grpc);

    created(&client, "bob");
    let twice = client.json("CreateUser", r#"{"user":{"name":"bob","email":"bob@example.com"}}"#);
    assert_eq!(twice.error(), (409, "already_exists".into(), "USER_ALREADY_EXISTS".into()));
    let invalid = client.json("CreateUser", r#"{"user":{"name":"","email":"nowhere"}}"#);
    assert_eq!(invalid.error(), (400, "invalid_argument".into(), "INVALID_FIELDS".into()));
    let fields = invalid.value().to_string();
    assert!(fields.contains("user.name") && fields.contains("user.email"), "{fields}");
}

#[test]
fn what_cannot_be_read_is_the_callers_fault_and_is_not_repeated() {
    let (_server, client) = started(&[]);
    for body in
        ["", "{", "[]", "{\"id\":7}", "{\"id\":\"a\"}}", "{\"id\":\"a\",\"email\":\"secret@example.com\"}"]
    {
        let answer = client.json("GetUser", body);
        assert_eq!(answer.error(), (400, "invalid_argument".into(), "MALFORMED_JSON".into()), "{body}");
        assert!(!answer.value().to_string().contains("secret"), "{answer:?}");
    }
    let with = |name: &str, value: &str| {
        client.ask(
            post(GET_USER, "application/json").header(name, value).body("{\"id\":\"a\"}".into()).unwrap(),
        )
    };
    let malformed = |answer: Whole| answer.error();
    assert_eq!(malformed(with("connect-protocol-version", "2")).2, "MALFORMED_REQUEST");
    assert_eq!(malformed(with("connect-protocol-version", "1")).2, "USER_NOT_FOUND");
    assert_eq!(malformed(with("connect-timeout-ms", "1s")).2, "INVALID_TIMEOUT");
    let packed = with("content-encoding", "br");
    assert_eq!(packed.error(), (501, "unimplemented".into(), "UNKNOWN_ENCODING".into()));
    assert_eq!(packed.header("accept-encoding"), Some("gzip"));
    // What only gRPC has means nothing here.
    assert_eq!(with("grpc-timeout", "0n").error().0, 404);
}

#[test]
fn a_request_that_is_no_call_is_refused_with_what_would_be_one() {
    let (_server, client) = started(&[]);
    let refused = |path: &str, content_type: &str| client.post(path, content_type, "{}");
    let unary = refused(GET_USER, "application/yaml").with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(unary.header("accept-post").unwrap().contains("application/json"), "{unary:?}");
    let stream = refused(WATCH_USERS, "application/json").with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(stream.header("accept-post").unwrap().contains("application/connect+json"), "{stream:?}");
    refused(GET_USER, "application/connect+json").with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    refused(GET_USER, "application/json; charset=latin1").with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    refused(GET_USER, "application/json; charset=utf-8").with_status(StatusCode::BAD_REQUEST);
    for content_type in ["application/json", "application/proto", "application/connect+json"] {
        let unknown = refused("/user.v1.UserService/Nothing", content_type);
        assert_eq!(unknown.error(), (404, "unimplemented".into(), "UNKNOWN_METHOD".into()));
    }
    for (verb, path, allow) in
        [("DELETE", GET_USER, "GET, POST"), ("PUT", CREATE_USER, "POST"), ("GET", WATCH_USERS, "POST")]
    {
        let request = Request::builder().method(verb).uri(format!("http://test{path}"));
        let answer = client.ask(request.body("".into()).unwrap()).with_status(StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(answer.header("allow"), Some(allow), "{verb} {path}");
    }
    get(&client, "/", "").with_status(StatusCode::NOT_FOUND);
}

#[test]
fn a_read_is_called_by_get_and_a_write_is_not() {
    let (_server, client) = started(&[]);
    let user = created(&client, "gil");
    let message = json!({ "id": user["id"] }).to_string();
    let escaped: String = form_urlencoded::byte_serialize(message.as_bytes()).collect();
    let plain = get(&client, GET_USER, &format!("connect=v1&encoding=json&message={escaped}"));
    assert_eq!(plain.with_status(StatusCode::OK).value()["user"], user);
    let encoded = URL_SAFE_NO_PAD.encode(gzip(message.as_bytes()));
    let query = format!("message={encoded}&base64=1&other=1&compression=gzip&encoding=json");
    let packed = get(&client, GET_USER, &query).with_status(StatusCode::OK);
    assert_eq!(packed.value()["user"], user);
    assert_eq!(
        (packed.header("vary"), packed.header("cache-control")),
        (Some("accept-encoding"), Some("no-store"))
    );
    let proto = GetUserRequest { key: Some(Key::Id(user["id"].as_str().unwrap().into())) }.encode_to_vec();
    let proto = format!("encoding=proto&base64=1&message={}", URL_SAFE_NO_PAD.encode(proto));
    let answer = get(&client, GET_USER, &proto).with_status(StatusCode::OK);
    assert_eq!(GetUserResponse::decode(answer.body).unwrap().user.unwrap().name, "gil");
    get(&client, "/user.v1.UserService/ListUsers", "encoding=json&message=%7B%7D")
        .with_status(StatusCode::OK);

    let write = format!("connect=v1&encoding=json&message={escaped}");
    get(&client, CREATE_USER, &write).with_status(StatusCode::METHOD_NOT_ALLOWED);
    for (query, status, reason) in [
        ("encoding=json", 400, "MALFORMED_REQUEST"),
        ("encoding=json&message=*&base64=1", 400, "MALFORMED_REQUEST"),
        ("encoding=json&message=%7B%7D&connect=v2", 400, "MALFORMED_REQUEST"),
        ("encoding=json&message=%7B", 400, "MALFORMED_JSON"),
        ("encoding=json&message=%7B%7D&compression=br", 501, "UNKNOWN_ENCODING"),
    ] {
        let (http, _, found) = get(&client, GET_USER, query).error();
        assert_eq!((http, &*found), (status, reason), "{query}");
    }
    for query in ["message=%7B%7D", "encoding=xml&message=a"] {
        get(&client, GET_USER, query).with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
}

#[test]
fn messages_are_packed_both_ways_within_the_limit() {
    let (_server, client) = started(&[]);
    let packed = |path: &str, content_type: &str, body: &[u8]| {
        let request = post(path, content_type).header("content-encoding", "gzip");
        client.ask(request.body(gzip(body).into()).unwrap())
    };
    let user = json!({ "user": { "name": "zip", "email": "zip@example.com" } }).to_string();
    packed(CREATE_USER, "application/json", user.as_bytes()).with_status(StatusCode::OK);
    let proto = GetUserRequest { key: Some(Key::Email("zip@example.com".into())) }.encode_to_vec();
    packed(GET_USER, "application/proto", &proto).with_status(StatusCode::OK);
    // An empty body is an empty message, packed or not.
    let empty =
        post("/user.v1.UserService/ListUsers", "application/proto").header("content-encoding", "gzip");
    client.ask(empty.body("".into()).unwrap()).with_status(StatusCode::OK);
    let bomb = json!({ "id": "a".repeat(1_000_000) }).to_string();
    let bomb = packed(GET_USER, "application/json", bomb.as_bytes());
    assert_eq!(bomb.error(), (429, "resource_exhausted".into(), "MESSAGE_TOO_LARGE".into()));
    let broken = post(GET_USER, "application/json").header("content-encoding", "gzip");
    assert_eq!(client.ask(broken.body("{}".into()).unwrap()).error().2, "MALFORMED_MESSAGE");

    for number in 0..20 {
        created(&client, &format!("user{number}"));
    }
    let list = |accept: &str| {
        let request = post("/user.v1.UserService/ListUsers", "application/json");
        client.ask(request.header("accept-encoding", accept).body("{}".into()).unwrap())
    };
    let (plain, answer) = (list("identity"), list("br, gzip"));
    assert_eq!((plain.header("content-encoding"), answer.header("content-encoding")), (None, Some("gzip")));
    assert!(answer.body.len() < plain.body.len() / 2, "{} of {}", answer.body.len(), plain.body.len());
    let unpacked: Value = serde_json::from_slice(&gunzip(&answer.body)).unwrap();
    assert_eq!(unpacked, plain.value());
}

#[test]
fn a_message_over_the_limit_is_refused_in_every_form() {
    let (_server, client) = started(&["--max-request-bytes", "2048"]);
    let long = json!({ "id": "a".repeat(3_000) }).to_string();
    let proto = GetUserRequest { key: Some(Key::Id("a".repeat(3_000))) }.encode_to_vec();
    for answer in [client.json("GetUser", &long), client.post(GET_USER, "application/proto", proto)] {
        assert_eq!(answer.error(), (429, "resource_exhausted".into(), "MESSAGE_TOO_LARGE".into()));
    }
    let stream = client.post(IMPORT_USERS, "application/connect+json", framed(long.as_bytes()));
    let end = &frames(&stream.body)[0];
    let end: Value = serde_json::from_slice(&end.1).unwrap();
    assert_eq!(code_and_reason(&end["error"]).1, "MESSAGE_TOO_LARGE");
}

#[test]
fn a_call_ends_at_its_deadline() {
    let (_server, client) = started(&[]);
    let late = post(GET_USER, "application/json").header("connect-timeout-ms", "0");
    let late = client.ask(late.body("{\"id\":\"a\"}".into()).unwrap());
    assert_eq!(late.error(), (504, "deadline_exceeded".into(), "DEADLINE_EXCEEDED".into()));
    let watch = post(WATCH_USERS, "application/connect+json").header("connect-timeout-ms", "50");
    let watch = client.ask(watch.body(framed(b"{}")).unwrap()).with_status(StatusCode::OK);
    let end: Value = serde_json::from_slice(&frames(&watch.body).last().unwrap().1).unwrap();
    assert_eq!(code_and_reason(&end["error"]), ("deadline_exceeded".into(), "DEADLINE_EXCEEDED".into()));
}

#[test]
fn a_watch_streams_json_until_the_drain_ends_it_with_its_token() {
    let (mut server, client) = started(&["--drain-timeout-ms", "10000"]);
    created(&client, "eve");
    let request =
        post(WATCH_USERS, "application/connect+json").body(framed(br#"{"initialState":true}"#)).unwrap();
    let response = client.begin(request);
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (200, &"application/connect+json".parse().unwrap())
    );
    let mut events = FrameStream::of(&client, response);
    let mut event = || -> (u8, Value) {
        let (flag, message) = events.next().expect("the stream goes on");
        (flag, serde_json::from_slice(&message).unwrap())
    };
    assert_eq!(event().1["existing"]["name"], "eve");
    assert!(event().1["caughtUp"].is_object());
    let fay = created(&client, "fay");
    let (flag, created) = event();
    assert_eq!((flag, &created["created"]), (0, &fay));
    server.signal("TERM");
    let (flag, end) = event();
    assert_eq!((flag, code_and_reason(&end["error"])), (2, ("unavailable".into(), "DRAINING".into())));
    assert!(end.to_string().contains("resume_token"), "{end}");
    assert_eq!(events.next(), None);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn an_import_answers_each_user_with_an_index_that_is_a_string() {
    let (_server, client) = started(&[]);
    let user = |name: &str| {
        framed(
            json!({ "user": { "name": name, "email": format!("{name}@example.com") } })
                .to_string()
                .as_bytes(),
        )
    };
    let body = [user("ann"), user("ben"), user("ann"), framed(b"{\"user\":{}}")].concat();
    let answer = client.post(IMPORT_USERS, "application/connect+json", body).with_status(StatusCode::OK);
    let frames = frames(&answer.body);
    let values: Vec<Value> =
        frames.iter().map(|(_, message)| serde_json::from_slice(message).unwrap()).collect();
    // The first index is 0, which JSON leaves out as every default.
    let index: Vec<_> = values.iter().filter_map(|value| value["index"].as_str()).collect();
    assert_eq!(index, ["1", "2", "3"], "{values:?}");
    // A status within a message has its details in JSON as well.
    let details = values[3]["error"]["details"].as_array().unwrap();
    assert_eq!(details[0]["@type"], "type.googleapis.com/google.rpc.ErrorInfo", "{details:?}");
    assert_eq!(details[0]["reason"], "INVALID_FIELDS");
    assert_eq!(frames.last().unwrap(), &(2, b"{}".to_vec()));
    // The same in protobuf, packed message by message.
    let request = post(CREATE_USER, "application/connect+proto");
    client.ask(request.body("".into()).unwrap()).with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[test]
fn a_method_of_one_message_takes_exactly_one() {
    let (_server, client) = started(&[]);
    for (body, reason) in [
        (bytes::Bytes::new(), "MISSING_MESSAGE"),
        ([framed(b"{}"), framed(b"{}")].concat().into(), "SEVERAL_MESSAGES"),
    ] {
        let answer = client.post(WATCH_USERS, "application/connect+json", body).with_status(StatusCode::OK);
        let end: Value = serde_json::from_slice(&frames(&answer.body)[0].1).unwrap();
        assert_eq!(code_and_reason(&end["error"]), ("unimplemented".into(), reason.into()));
    }
}

#[test]
fn calls_are_counted_and_logged_by_what_their_callers_speak() {
    let (mut server, client) = started(&[]);
    created(&client, "log");
    let line = server.wait_for_line("\"call\"");
    assert!(
        line.contains("\"method\":\"user.v1.UserService/CreateUser\"")
            && line.contains("\"protocol\":\"connect\""),
        "{line}"
    );
    client.post(GET_USER, "application/grpc", framed(&[]));
    client.post(GET_USER, "text/html", "");
    let page = ask(server.admin_addr, "GET /metrics").body;
    let calls = |protocol: &str| {
        sum(&page, "user_service_protocol_calls_total", &[&format!("protocol=\"{protocol}\"")])
    };
    // A refused request is a call of no method, in no other protocol than the one that the layers know.
    assert_eq!((calls("connect"), calls("grpc"), calls("grpc_web")), (1.0, 2.0, 0.0), "{page}");
    let created = ["grpc_method=\"CreateUser\"", "grpc_code=\"OK\""];
    assert!(sum(&page, "grpc_server_handled_total", &created) > 0.0);
    let created = ["rpc_system_name=\"connectrpc\"", "rpc_method=\"user.v1.UserService/CreateUser\""];
    assert!(sum(&page, "rpc_server_call_duration_seconds_count", &created) > 0.0);
}

#[test]
fn an_answer_in_protobuf_is_the_message_and_nothing_else() {
    let (_server, client) = started(&[]);
    let user = json!({ "user": { "name": "raw", "email": "raw@example.com" } }).to_string();
    let json = client.json("CreateUser", &user).value();
    let request = GetUserRequest { key: Some(Key::Email("raw@example.com".into())) }.encode_to_vec();
    let answer = client.post(GET_USER, "application/proto", request);
    assert_eq!(answer.header("content-length"), Some(&*answer.body.len().to_string()));
    assert!(answer.trailers.is_none() && answer.header("grpc-status").is_none(), "{answer:?}");
    let user = CreateUserResponse::decode(answer.body).unwrap().user.unwrap();
    assert_eq!(Value::from(user.etag), json["user"]["etag"]);
}
