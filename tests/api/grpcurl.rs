//! grpcurl, which knows nothing of this service but what reflection says.

use crate::{
    run::{Ended, run, tool},
    support::Server,
};

/// What grpcurl adds to the code of an RPC's status to make its exit code.
const STATUS: i32 = 64;

fn grpcurl(server: &Server, before: &[&str], after: &[&str]) -> Ended {
    let mut command = tool("bin/grpcurl");
    command
        .args(["-plaintext", "-max-time", "60"])
        .args(before)
        .arg(server.grpc_addr.to_string())
        .args(after);
    run(&mut command)
}

#[test]
fn grpcurl_lists_every_service() {
    let server = Server::start(&[]);
    let listed = grpcurl(&server, &[], &["list"]).with_code(0).stdout;
    let services = [
        "UserService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "user.v1.UserService",
    ];
    assert_eq!(listed.lines().collect::<Vec<_>>(), services);
    let methods = grpcurl(&server, &[], &["list", "user.v1.UserService"]).with_code(0).stdout;
    assert_eq!(methods.lines().count(), 8, "{methods}");
}

#[test]
fn grpcurl_describes_services_and_messages_with_their_comments() {
    let server = Server::start(&[]);
    let service = grpcurl(&server, &[], &["describe", "user.v1.UserService"]).with_code(0).stdout;
    for text in ["// Stores users.", "rpc BatchGetUsers (", "// Returns one user, by id or by e-mail address"]
    {
        assert!(service.contains(text), "{text:?} is not in\n{service}");
    }
    let message = grpcurl(&server, &[], &["describe", "user.v1.CreateUserRequest"]).with_code(0).stdout;
    for text in ["// A UUID that makes a retry safe", ".user.v1.User user = 1;"] {
        assert!(message.contains(text), "{text:?} is not in\n{message}");
    }
    for detail in ["ErrorInfo", "BadRequest", "ResourceInfo", "RetryInfo"] {
        let text = grpcurl(&server, &[], &["describe", &format!("google.rpc.{detail}")]).with_code(0).stdout;
        assert!(text.contains(&format!("message {detail} {{")), "{text}");
    }
}

#[test]
fn grpcurl_calls_both_contracts() {
    let server = Server::start(&[]);
    let user = r#"{"user": {"name": "Ada", "email": "ada@example.com", "age": 36}, "user_id": "ada"}"#;
    grpcurl(&server, &["-d", user], &["user.v1.UserService/CreateUser"]).with_code(0);
    let by_id =
        grpcurl(&server, &["-d", r#"{"id": "ada"}"#], &["user.v1.UserService/GetUser"]).with_code(0).stdout;
    assert!(by_id.contains(r#""email": "ada@example.com""#), "{by_id}");
    let article =
        grpcurl(&server, &["-d", r#"{"user": {"id": "ada"}}"#], &["UserService/GetUser"]).with_code(0).stdout;
    assert!(article.contains(r#""name": "Ada""#), "{article}");
    let health = grpcurl(&server, &[], &["grpc.health.v1.Health/Check"]).with_code(0).stdout;
    assert!(health.contains(r#""status": "SERVING""#), "{health}");
}

#[test]
fn grpcurl_decodes_the_details_of_errors() {
    let server = Server::start(&[]);
    let missing = grpcurl(&server, &["-d", r#"{"id": "nobody"}"#], &["user.v1.UserService/GetUser"]);
    let missing = missing.with_code(STATUS + 5).stderr;
    let invalid = grpcurl(&server, &["-d", r#"{"user": {"age": 200}}"#], &["user.v1.UserService/CreateUser"]);
    let invalid = invalid.with_code(STATUS + 3).stderr;
    for (text, all) in [
        ("Code: NotFound", &missing),
        ("google.rpc.ErrorInfo", &missing),
        (r#""domain": "user-service""#, &missing),
        (r#""resourceType": "user.v1.User""#, &missing),
        (r#""field": "user.name""#, &invalid),
        (r#""field": "user.email""#, &invalid),
        (r#""field": "user.age""#, &invalid),
    ] {
        let one_space = all.replace("\":\"", "\": \"");
        assert!(one_space.contains(text), "{text} is not in\n{all}");
    }
    for all in [&missing, &invalid] {
        assert!(!all.contains("@value"), "a detail is not decoded:\n{all}");
    }
}

#[test]
fn the_articles_contract_can_be_switched_off() {
    let server = Server::start(&["--article-api", "false"]);
    let listed = grpcurl(&server, &[], &["list"]).with_code(0).stdout;
    assert!(!listed.lines().any(|line| line == "UserService"), "{listed}");
    let own_proto = ["-import-path", "proto", "-proto", "user.proto"];
    let called = grpcurl(&server, &own_proto, &["UserService/GetUser"]).with_code(STATUS + 12).stderr;
    assert!(called.contains("Code: Unimplemented"), "{called}");
}
