//! `grpc_health_probe`, the probe that deployments have used for years.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Instant,
};

use crate::{
    run::{Ended, run, tool},
    support::{Server, TEST_TIMEOUT, free_port},
};

fn probe(addr: SocketAddr, args: &[&str]) -> Ended {
    run(tool("bin/grpc-health-probe").arg("-addr").arg(addr.to_string()).args(args))
}

#[test]
fn every_health_name_is_serving_on_both_ports() {
    let server = Server::start(&[]);
    for addr in [server.grpc_addr, server.admin_addr] {
        for name in ["", "liveness", "user.v1.UserService", "UserService"] {
            probe(addr, &["-service", name]).with_code(0);
        }
        probe(addr, &["-gzip"]).with_code(0);
        probe(addr, &["-connect-timeout", "500ms", "-rpc-timeout", "500ms"]).with_code(0);
        probe(addr, &["-rpc-header", "x-probe: 1", "-user-agent", "kube-probe/1.37"]).with_code(0);
    }
}

#[test]
fn nobody_listening_is_2() {
    let free = (Ipv4Addr::LOCALHOST, free_port()).into();
    probe(free, &[]).with_code(2);
}

#[test]
fn an_unknown_name_is_3() {
    let server = Server::start(&[]);
    probe(server.grpc_addr, &["-service", "nobody"]).with_code(3);
    probe(server.admin_addr, &["-service", "nobody"]).with_code(3);
}

#[test]
fn a_server_about_to_stop_is_4_but_alive() {
    let server = Server::start(&["--shutdown-delay-ms", "60000"]);
    server.signal("TERM");
    let until = Instant::now() + TEST_TIMEOUT;
    // The signal takes a moment to arrive; a probe is asked until it has.
    while probe(server.grpc_addr, &[]).code == 0 {
        assert!(Instant::now() < until, "the server is still SERVING after SIGTERM");
    }
    for addr in [server.grpc_addr, server.admin_addr] {
        probe(addr, &[]).with_code(4);
        probe(addr, &["-service", "user.v1.UserService"]).with_code(4);
        probe(addr, &["-service", "liveness"]).with_code(0);
    }
}
