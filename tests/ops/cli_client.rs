//! `check`: every way it can end.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use crate::{
    cli::Cli,
    support::{Server, free_port},
};

#[test]
fn check_ends_with_1_when_used_wrongly() {
    let cli = Cli::new();
    for args in [&["check"][..], &["check", "localhost"], &["check", "localhost:1", "--timeout-ms", "x"]] {
        let refused = cli.run(args);
        assert_eq!(refused.code, Some(1), "{args:?}: {}", refused.err);
    }
    assert_eq!(cli.run(&["check", "--help"]).code, Some(0));
}

#[test]
fn check_ends_with_2_where_nobody_listens() {
    let free = format!("127.0.0.1:{}", free_port());
    let checked = Cli::new().run(&["check", &free]);
    assert_eq!(checked.code, Some(2), "{}", checked.err);
    assert!(checked.err.contains(&free), "{}", checked.err);
}

#[test]
fn check_ends_with_2_where_nobody_speaks_http2() {
    // Accepted by the kernel, and by nobody else: how a process that hangs looks.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = silent.local_addr().unwrap().to_string();
    let checked = Cli::new().run(&["check", &addr, "--connect-timeout-ms", "100"]);
    assert_eq!(checked.code, Some(2), "{}", checked.err);
    assert!(checked.err.contains("no HTTP/2 connection within 100 ms"), "{}", checked.err);

    let other = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n";
    let cut_short = &[0, 0, 0, 4];
    for opening in [&b""[..], other, cut_short] {
        let checked = Cli::new().run(&["check", &answering(opening), "--connect-timeout-ms", "20000"]);
        assert_eq!(checked.code, Some(2), "{opening:?}: {}", checked.err);
        assert!(!checked.err.contains("within"), "{opening:?}: {}", checked.err);
    }
}

#[test]
fn check_ends_with_3_where_the_call_gets_no_answer() {
    let settings = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let checked = Cli::new().run(&["check", &holding(settings), "--timeout-ms", "100"]);
    assert_eq!(checked.code, Some(3), "{}", checked.err);
}

/// A peer that sends this, and then closes.
fn answering(bytes: &'static [u8]) -> String {
    peer(bytes, |_| ())
}

/// A peer that sends this and nothing more.
fn holding(bytes: &'static [u8]) -> String {
    peer(bytes, |mut stream| drop(stream.read_to_end(&mut Vec::new())))
}

fn peer(bytes: &'static [u8], then: fn(TcpStream)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(bytes).unwrap();
        then(stream);
    });
    addr
}

#[test]
fn check_tells_serving_from_unknown_and_from_draining() {
    let cli = Cli::new();
    let mut server = Server::start(&["--shutdown-delay-ms", "600000"]);
    let addr = server.grpc_addr.to_string();
    let serving = cli.run(&["check", &addr]);
    assert_eq!((serving.code, serving.out.as_str()), (Some(0), "SERVING\n"), "{}", serving.err);
    assert_eq!(
        cli.run(&["check", &server.admin_addr.to_string()]).code,
        Some(0),
        "the admin port tells, too"
    );
    assert_eq!(cli.run(&["check", &addr, "--service", "user.v1.UserService"]).code, Some(0));
    assert_eq!(cli.run(&["check", &addr, "--service", "nobody.Knows"]).code, Some(3));

    server.signal("TERM");
    server.wait_for_line("\"draining\"");
    let draining = cli.run(&["check", &addr]);
    assert_eq!((draining.code, draining.out.as_str()), (Some(4), "NOT_SERVING\n"), "{}", draining.err);
    assert_eq!(cli.run(&["check", &addr, "--service", "liveness"]).code, Some(0));

    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(143), "a second signal ends the drain");
}
