//! What starts, and what does not.

use std::process::Command;

use serde_json::json;

use crate::{
    support::{Server, documented, http::ask},
    tokens::{Files, Key, jwks},
    verification::ANY_TOKEN,
};

/// How a server ends that must not start: its exit code and what it says.
pub fn refused(arguments: &[String]) -> (Option<i32>, String) {
    // A server that is not refused would serve for ever.
    let output = Command::new("timeout")
        .args(["30", env!("CARGO_BIN_EXE_user-service"), "--store-url", "memory:"])
        .args(["--grpc-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"])
        .args(arguments)
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_part_of_the_settings_does_not_start() {
    let files = Files::new(&jwks(&[&Key::ed("ed")]), ANY_TOKEN);
    let all = files.arguments();
    for part in 1..15 {
        let chosen = all.chunks(2).enumerate().filter(|(index, _)| part & (1 << index) != 0);
        let chosen: Vec<_> = chosen.flat_map(|(_, pair)| pair.to_vec()).collect();
        let (code, said) = refused(&chosen);
        assert_eq!(code, Some(64), "{chosen:?}: {said}");
        assert!(said.contains("must be set too") || said.contains("needs identities"), "{said}");
    }
}

#[test]
fn files_that_cannot_be_used_do_not_start() {
    let good = jwks(&[&Key::ed("ed")]);
    for (keys, policy, says) in [
        (json!({ "keys": [] }).to_string(), ANY_TOKEN.to_owned(), "auth_jwks_file"),
        (good.clone(), "roles = 1".into(), "auth_policy_file"),
        (good, ANY_TOKEN.replace("ListUsers", "Lists"), "there is no method"),
    ] {
        let files = Files::new(&keys, &policy);
        let (code, said) = refused(&files.arguments());
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(says), "{said}");
    }
}

#[test]
fn it_is_said_once_that_everybody_may_do_everything() {
    let mut server = Server::start(&[]);
    let says = |server: &mut Server| {
        let lines = server.log().iter().filter(|line| line.contains("auth is off")).count();
        (lines, server.log().iter().any(|line| line.contains("auth is off") && line.contains("WARN")))
    };
    assert_eq!(says(&mut server), (1, true));
    let files = Files::new(&jwks(&[&Key::ed("ed")]), ANY_TOKEN);
    assert_eq!(says(&mut files.serve(&[])).0, 0);
}

#[test]
fn what_identities_shares_and_audit_measure_is_documented() {
    let files = Files::new(&jwks(&[&Key::ed("ed")]), ANY_TOKEN);
    let server = files.serve(&["--audit-log", "stderr", "--max-calls-per-caller", "9"]);
    let page = ask(server.admin_addr, "GET /metrics").body;
    let ours = ["`auth_policy_file` is set", "a share is limited", "`audit_log` is not `off`"];
    let shown = documented::shown(&page);
    let promised = documented::promised();
    let mut found = 0;
    for (name, promise) in promised.iter().filter(|(_, promise)| ours.contains(&promise.shown.as_str())) {
        let (kind, labels) = shown.get(name).unwrap_or_else(|| panic!("{name} is not shown"));
        assert_eq!((kind, labels), (&promise.kind, &promise.labels), "{name}");
        found += 1;
    }
    assert_eq!(found, 5);
    // Where all of it is off, none of it is there.
    let server = Server::start(&[]);
    let shown = documented::shown(&ask(server.admin_addr, "GET /metrics").body);
    assert!(shown.keys().all(|name| !ours.contains(&promised[name].shown.as_str())));
}
