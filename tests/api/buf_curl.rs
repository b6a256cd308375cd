//! `buf curl`, which calls by each of three protocols.

use crate::{
    run::{Ended, path, run, tool},
    support::Server,
};

/// Each protocol, over HTTP/1.1 where it can be.
const WAYS: [&[&str]; 5] = [
    &["--protocol", "connect"],
    &["--protocol", "connect", "--http2-prior-knowledge"],
    &["--protocol", "grpc", "--http2-prior-knowledge"],
    &["--protocol", "grpcweb"],
    &["--protocol", "grpcweb", "--http2-prior-knowledge"],
];

fn call(server: &Server, way: &[&str], method: &str, message: &str) -> Ended {
    let mut command = tool("tools/buf/node_modules/.bin/buf");
    let url = format!("http://{}/user.v1.UserService/{method}", server.grpc_addr);
    command.arg("curl").args(way).arg("--schema").arg(path("proto")).args(["--data", message, &url]);
    run(&mut command)
}

#[test]
fn buf_curl_calls_and_is_refused_by_each_protocol() {
    let server = Server::start(&[]);
    for (number, way) in WAYS.into_iter().enumerate() {
        let email = format!("ada-{number}@example.com");
        let user = format!(r#"{{"user": {{"name": "Ada", "email": "{email}", "age": 36}}}}"#);
        let created = call(&server, way, "CreateUser", &user).with_code(0).stdout;
        assert!(created.contains(&email), "{way:?}: {created}");
        let found = call(&server, way, "GetUser", &format!(r#"{{"email": "{email}"}}"#)).with_code(0).stdout;
        assert!(found.contains(r#""age":36"#) || found.contains(r#""age": 36"#), "{way:?}: {found}");
        let refused = call(&server, way, "CreateUser", r#"{"user": {"email": "nobody"}}"#);
        assert_ne!(refused.code, 0, "{way:?}");
        for part in ["invalid_argument", "google.rpc.BadRequest", "user.email"] {
            assert!(refused.stderr.contains(part), "{way:?}: no {part} in {}", refused.stderr);
        }
    }
}

#[test]
fn buf_curl_finds_the_schema_by_reflection() {
    let server = Server::start(&[]);
    let mut command = tool("tools/buf/node_modules/.bin/buf");
    let url = format!("http://{}/user.v1.UserService/ListUsers", server.grpc_addr);
    command.args(["curl", "--protocol", "connect", "--http2-prior-knowledge", "--data", "{}", &url]);
    assert_eq!(run(&mut command).with_code(0).stdout.trim(), "{}");
}
