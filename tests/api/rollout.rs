//! A server goes while grpc-go calls it and another one.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use crate::{run::go, support::Server};

const ROUNDS: usize = 20;

#[test]
fn grpc_go_sees_no_call_fail_when_a_server_goes() {
    let mut stays = Server::start(&["--call-log", "false"]);
    for round in 0..ROUNDS {
        let goes = stays;
        stays = Server::start(&["--call-log", "false"]);
        let mut client = go("load", &format!("{},{}", goes.grpc_addr, stays.grpc_addr))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the client starts");
        let mut said = BufReader::new(client.stdout.take().expect("stdout is piped")).lines();
        let mut line = || said.next().expect("the client goes on").expect("a line is text");
        assert_eq!(line(), "ready", "round {round}");

        assert_eq!(goes.stop().code(), Some(0), "round {round}");
        drop(client.stdin.take());
        let calls = line();
        assert!(client.wait().expect("the client ends").success(), "round {round}: {calls}");
    }
}
