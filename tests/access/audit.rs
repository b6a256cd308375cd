//! The audit log: a line for each write and each denial, and no personal data.

use std::{fs, path::Path, time::Duration};

use prost::Message;
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tonic::Code;
use user_service::proto::user::v1::{
    CreateUserRequest, DeleteUserRequest, GetUserRequest, ImportUsersRequest, UpdateUserRequest, User,
    get_user_request::Key as By,
};

use crate::{
    caller::{Caller, bearer},
    support::{Server, TEST_TIMEOUT, http::ask},
    tokens::{Files, Key, claims, jwks},
};

const POLICY: &str = r#"
[roles.all]
methods = ["user.v1.UserService/*"]
[roles.own]
self = ["user.v1.UserService/GetUser"]
[[grants]]
subjects = ["ada"]
roles = ["all"]
[[grants]]
any_token = true
roles = ["own"]
"#;

fn user(id: &str) -> User {
    let email = format!("canary.{id}@example.test");
    User { id: id.into(), name: "Canary Bird".into(), email, ..User::default() }
}

/// The lines of a file, once there are so many.
async fn lines(path: &Path, count: usize) -> Vec<Value> {
    let until = Instant::now() + TEST_TIMEOUT;
    loop {
        let text = fs::read_to_string(path).unwrap_or_default();
        if text.lines().count() >= count {
            return text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        }
        assert!(Instant::now() < until, "{} of {count} lines:\n{text}", text.lines().count());
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn each_write_and_each_denial_has_a_line_and_no_line_holds_a_name_or_an_address() {
    let key = Key::ed("ed");
    let files = Files::new(&jwks(&[&key]), POLICY);
    let path = files.audit();
    let server = files.serve(&["--audit-log", &format!("file:{}", path.display())]);
    let caller = Caller::connect(server.grpc_addr).await;
    let [ada, bob] = ["ada", "bob"].map(|name| bearer(&key.sign(&claims(name, &json!({})))));
    let call = async |name: &str, by: &[&str], message: Vec<u8>| {
        caller.call(&format!("/user.v1.UserService/{name}"), by, &message).await.code
    };
    let create = CreateUserRequest { user_id: "u1".into(), user: Some(user("u1")), ..Default::default() };
    assert_eq!(call("CreateUser", &[&ada], create.encode_to_vec()).await, Code::Ok);
    assert_eq!(call("CreateUser", &[&ada], create.encode_to_vec()).await, Code::AlreadyExists);
    let update = UpdateUserRequest { user: Some(user("u1")), ..Default::default() };
    assert_eq!(call("UpdateUser", &[&ada], update.encode_to_vec()).await, Code::Ok);
    let get = |id: &str| GetUserRequest { key: Some(By::Id(id.into())) }.encode_to_vec();
    assert_eq!(call("GetUser", &[&ada], get("u1")).await, Code::Ok);
    let import = ImportUsersRequest { user_id: "u2".into(), user: Some(user("u2")) };
    assert_eq!(call("ImportUsers", &[&ada], import.encode_to_vec()).await, Code::Ok);
    // Ends once its call has, which a next call does not wait for.
    lines(&path, 5).await;
    let delete = DeleteUserRequest { id: "u1".into(), ..Default::default() }.encode_to_vec();
    assert_eq!(call("DeleteUser", &[&ada], delete.clone()).await, Code::Ok);
    assert_eq!(call("DeleteUser", &[&bob], delete.clone()).await, Code::PermissionDenied);
    assert_eq!(call("GetUser", &[&bob], get("u2")).await, Code::PermissionDenied);
    assert_eq!(call("GetUser", &[], get("u2")).await, Code::Unauthenticated);
    assert_eq!(call("GetUser", &["Bearer x"], get("u2")).await, Code::Unauthenticated);
    let lines = lines(&path, 10).await;
    let field = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    let said: Vec<_> = lines
        .iter()
        .map(|line| ["caller", "method", "user", "code", "denied"].map(|name| field(line, name)).join(" "))
        .collect();
    let v1 = "user.v1.UserService";
    assert_eq!(
        said,
        [
            format!("sub:ada {v1}/CreateUser u1 OK "),
            format!("sub:ada {v1}/CreateUser u1 ALREADY_EXISTS "),
            format!("sub:ada {v1}/UpdateUser u1 OK "),
            format!("sub:ada {v1}/ImportUsers u2 OK "),
            format!("sub:ada {v1}/ImportUsers  OK "),
            format!("sub:ada {v1}/DeleteUser u1 OK "),
            format!("sub:bob {v1}/DeleteUser  PERMISSION_DENIED not_permitted"),
            format!("sub:bob {v1}/GetUser u2 PERMISSION_DENIED not_own"),
            format!("anonymous {v1}/GetUser  UNAUTHENTICATED missing"),
            format!("anonymous {v1}/GetUser  UNAUTHENTICATED malformed"),
        ]
    );
    for line in &lines {
        assert!(!field(line, "timestamp").is_empty(), "{line}");
        let text = line.to_string().to_lowercase();
        assert!(!text.contains("canary") && !text.contains('@'), "{line}");
    }
}

#[tokio::test]
async fn a_user_of_an_import_that_was_broken_off_has_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let [store, path] = ["users.db", "audit"].map(|name| dir.path().join(name));
    let (url, audit) = (format!("sqlite:{}", store.display()), format!("file:{}", path.display()));
    let server = Server::start(&["--store-url", &url, "--audit-log", &audit]);
    let caller = Caller::connect(server.grpc_addr).await;
    // The write waits for this.
    let other_program = Connection::open(&store).unwrap();
    other_program.execute_batch("BEGIN IMMEDIATE").unwrap();
    let import = ImportUsersRequest { user_id: "u1".into(), user: Some(user("u1")) }.encode_to_vec();
    let importing = tokio::spawn(async move {
        caller.call("/user.v1.UserService/ImportUsers", &[], &import).await;
    });
    let until = Instant::now() + TEST_TIMEOUT;
    let received = "grpc_server_msg_received_total{grpc_type=\"bidi_stream\",\
                    grpc_service=\"user.v1.UserService\",grpc_method=\"ImportUsers\"} 1";
    while !ask(server.admin_addr, "GET /metrics").body.lines().any(|line| line == received) {
        assert!(Instant::now() < until, "no {received}");
        sleep(Duration::from_millis(20)).await;
    }
    importing.abort();
    let lines = lines(&path, 2).await;
    let said: Vec<_> = lines.iter().map(|line| [&line["user"], &line["code"]]).collect();
    assert_eq!(said, [[&json!("u1"), &json!("CANCELLED")], [&Value::Null, &json!("CANCELLED")]]);
}

#[tokio::test]
async fn audit_lines_name_the_trace_and_no_filter_of_the_log_leaves_them_out() {
    let mut server =
        Server::start(&["--audit-log", "stderr", "--log-filter", "info,user_service::audit=off"]);
    let caller = Caller::connect(server.grpc_addr).await;
    let create = CreateUserRequest { user_id: "u1".into(), user: Some(user("u1")), ..Default::default() };
    let request = http::Request::post("http://test/user.v1.UserService/CreateUser")
        .header("content-type", "application/grpc")
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00");
    let told = caller.send(request.body(()).unwrap(), &create.encode_to_vec()).await.unwrap();
    assert_eq!(told.code, Code::Ok);
    let line: Value = serde_json::from_str(&server.wait_for_line("user_service::audit")).unwrap();
    assert_eq!(line["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!((&line["caller"], &line["user"]), (&json!("anonymous"), &json!("u1")));
}

#[tokio::test]
async fn audit_lines_that_cannot_be_written_are_counted_and_calls_go_on() {
    let server = Server::start(&["--audit-log", "file:/dev/full"]);
    let caller = Caller::connect(server.grpc_addr).await;
    let create = CreateUserRequest { user_id: "u1".into(), user: Some(user("u1")), ..Default::default() };
    let told = caller.call("/user.v1.UserService/CreateUser", &[], &create.encode_to_vec()).await;
    assert_eq!(told.code, Code::Ok);
    let until = Instant::now() + TEST_TIMEOUT;
    let lost = "user_service_audit_lines_lost_total{reason=\"write_failed\"} 1";
    while !ask(server.admin_addr, "GET /metrics").body.lines().any(|line| line == lost) {
        assert!(Instant::now() < until, "no {lost}");
        sleep(Duration::from_millis(20)).await;
    }
}
