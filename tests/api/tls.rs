//! Foreign clients by TLS, with certificates and without.

use std::process::Command;

use serde_json::json;

use crate::{
    run::{Ended, go, node, python, run, tool},
    support::{
        Server,
        certificates::{Authority, Files},
    },
    tokens::{Files as AuthFiles, Key, claims, jwks},
};

/// What lets every caller with a token make every call.
const POLICY: &str = r#"
[roles.all]
methods = ["user.v1.UserService/*", "grpc.reflection.v1.ServerReflection/ServerReflectionInfo"]

[[grants]]
any_token = true
roles = ["all"]
"#;

/// The variables that the clients of this repository read.
fn with_tls(command: &mut Command, files: &Files, shown: Option<&str>) -> Ended {
    command.env("TLS_CA", files.path("ca.pem"));
    if let Some(name) = shown {
        let file = |suffix: &str| files.path(&format!("{name}.{suffix}"));
        command.env("TLS_CERT", file("pem")).env("TLS_KEY", file("key"));
    }
    run(command)
}

fn addr(server: &Server) -> String {
    format!("localhost:{}", server.grpc_addr.port())
}

/// A server with TLS and one that wants certificates, each with what a client shows.
fn servers(files: &Files) -> [(Server, Option<&'static str>); 2] {
    [(Server::start_with(&files.tls()), None), (Server::start_with(&files.mutual_tls()), Some("client"))]
}

#[test]
fn grpc_go_negotiates_the_hybrid_group_and_makes_every_call() {
    let files = Files::new();
    for (server, shown) in servers(&files) {
        for part in ["tls", "calls", "channel"] {
            let ended = with_tls(&mut go(part, &addr(&server)), &files, shown);
            assert_eq!(ended.with_code(0).stdout.lines().last(), Some("ok"), "{part}");
        }
    }
}

#[test]
fn grpcio_makes_every_call() {
    let files = Files::new();
    for (server, shown) in servers(&files) {
        let ended = with_tls(&mut python("user_v1.py", "ours", &addr(&server)), &files, shown);
        assert_eq!(ended.with_code(0).stdout.lines().last(), Some("ok"));
    }
}

#[test]
fn grpc_js_makes_every_call() {
    let files = Files::new();
    for (server, shown) in servers(&files) {
        let ended = with_tls(&mut node("client.js", &addr(&server)), &files, shown);
        assert_eq!(ended.with_code(0).stdout.lines().last(), Some("ok"));
    }
}

#[test]
fn each_library_sends_a_token_with_each_call_over_tls_and_over_mutual_tls() {
    let (files, key) = (Files::new(), Key::ec("now"));
    let auth = AuthFiles::new(&jwks(&[&key]), POLICY);
    let token = files.write("token", &key.sign(&claims("tests", &json!({}))));
    for (flags, shown) in [(files.tls(), None), (files.mutual_tls(), Some("client"))] {
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        let server = auth.serve(&flags);
        let addr = addr(&server);
        let grpcio = || python("user_v1.py", "ours", &addr);
        for mut command in [go("calls", &addr), grpcio(), node("client.js", &addr)] {
            let ended = with_tls(command.env("TOKEN_FILE", &token), &files, shown);
            assert_eq!(ended.with_code(0).stdout.lines().last(), Some("ok"), "{command:?}");
        }
        let refused = with_tls(&mut grpcio(), &files, shown);
        assert_ne!(refused.code, 0, "without a token");
    }
}

#[test]
fn grpcurl_and_the_probe_get_in_with_a_certificate_alone() {
    let files = Files::new();
    let stranger = Authority::new("stranger");
    files.write_pair("stranger", &stranger.client());
    let server = Server::start_with(&files.mutual_tls());
    let ca = files.path("ca.pem");
    for (name, gets_in) in [(Some("client"), true), (Some("stranger"), false), (None, false)] {
        let pair = name.map(|name| [files.path(&format!("{name}.pem")), files.path(&format!("{name}.key"))]);
        let mut curl = tool("bin/grpcurl");
        curl.args(["-max-time", "60", "-cacert", &ca]);
        let mut probe = tool("bin/grpc-health-probe");
        probe.args(["-addr", &addr(&server), "-tls", "-tls-ca-cert", &ca, "-connect-timeout", "5s"]);
        if let Some([cert, key]) = &pair {
            curl.args(["-cert", cert, "-key", key]);
            probe.args(["-tls-client-cert", cert, "-tls-client-key", key]);
        }
        let listed = run(curl.arg(addr(&server)).arg("list"));
        assert_eq!(listed.code == 0 && listed.stdout.contains("user.v1.UserService"), gets_in, "{name:?}");
        let probed = run(&mut probe);
        assert_eq!(probed.code == 0, gets_in, "{name:?}: {}", probed.stderr);
    }
    // The kubelet's probes have no TLS: the admin port stays plain.
    run(tool("bin/grpc-health-probe").arg("-addr").arg(server.admin_addr.to_string())).with_code(0);
}
