//! Programs written with the libraries of gRPC and Connect in Python, Go and Node.js. Each
//! checks the server for itself and says what is wrong.

use std::process::Command;

use crate::{
    run::{go, node, python, run},
    support::{Server, http},
};

fn passes(mut client: Command) {
    assert_eq!(run(&mut client).with_code(0).stdout.lines().last(), Some("ok"));
}

#[test]
fn the_articles_own_client_runs_to_its_end_twice() {
    let server = Server::start(&[]);
    let said = || run(&mut python("article_client.py", "article", &server.grpc_addr)).with_code(0).stdout;
    let john = "name: \"John Doe\"\nemail: \"john@example.com\"\nage: 30\n";
    assert_eq!(said(), format!("Found: \nCreated: {john}\nFound: {john}\n"));
    assert_eq!(said(), format!("Found: {john}\nCreated: {john}\nFound: {john}\n"));
}

#[test]
fn the_articles_calls_know_ids_and_say_who_is_missing() {
    let server = Server::start(&[]);
    passes(python("article_by_id.py", "ours", &server.grpc_addr));
}

#[test]
fn pythons_grpcio_makes_every_call() {
    let server = Server::start(&[]);
    passes(python("user_v1.py", "ours", &server.grpc_addr));
}

#[test]
fn pythons_grpcio_goes_on_after_what_reflection_does_not_know() {
    let server = Server::start(&[]);
    passes(python("reflection.py", "ours", &server.grpc_addr));
}

#[test]
fn grpc_go_makes_every_call() {
    passes(go("calls", &Server::start(&[]).grpc_addr));
}

#[test]
fn grpc_go_retries_checks_health_and_keeps_alive() {
    passes(go("channel", &Server::start(&[]).grpc_addr));
}

#[test]
fn grpc_js_makes_every_call() {
    passes(node("client.js", &Server::start(&[]).grpc_addr));
}

#[test]
fn connect_go_calls_by_each_protocol() {
    passes(go("connect", &Server::start(&[]).grpc_addr));
}

#[test]
fn connect_node_calls_by_each_protocol() {
    passes(node("connect.js", &Server::start(&[]).grpc_addr));
}

/// Asserts that one connection was enough for everything.
fn kept_its_connection(server: &Server) {
    let page = http::ask(server.admin_addr, "GET /metrics").body;
    let sum = |name: &str, labels: &[&str]| http::sum(&page, name, labels).to_bits();
    assert_eq!(sum("user_service_policed_connections_total", &[]), 0, "policed:\n{page}");
    assert_eq!(sum("grpc_server_connections_accepted_total", &[]), 1_f64.to_bits(), "not one:\n{page}");
}

#[test]
fn grpc_go_may_give_up_as_many_calls_as_it_likes() {
    let server = Server::start(&["--call-log", "false"]);
    passes(go("cancels", &server.grpc_addr));
    kept_its_connection(&server);
}

#[test]
fn pythons_grpcio_may_give_up_as_many_calls_as_it_likes() {
    let server = Server::start(&["--call-log", "false"]);
    passes(python("cancels.py", "ours", &server.grpc_addr));
    kept_its_connection(&server);
}

#[test]
fn grpc_js_may_give_up_as_many_calls_as_it_likes() {
    let server = Server::start(&["--call-log", "false"]);
    passes(node("cancels.js", &server.grpc_addr));
    kept_its_connection(&server);
}

#[test]
fn reflection_answers_in_its_older_version() {
    passes(go("v1alpha", &Server::start(&[]).grpc_addr));
}
