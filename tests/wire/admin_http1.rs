//! HTTP/1.1 on the admin port, as a peer that does what no library would sees it.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use crate::{
    raw_http1::{Client, Response},
    support::{Server, TEST_TIMEOUT, http},
    tls::wait_for_metric,
};

const LIVEZ: &str = "GET /livez HTTP/1.1\r\nhost: admin\r\n\r\n";

/// What a peer is told that sends these bytes, after which the connection ends.
fn told(server: &Server, bytes: &str) -> Option<Response> {
    let mut client = Client::connect(server.admin_addr);
    // The server may end the connection before it has read everything.
    client.try_write(bytes);
    let response = client.try_response();
    assert_eq!(client.rest(), "", "{bytes:?}");
    response
}

#[test]
fn requests_are_answered_one_after_the_other_however_they_are_cut() {
    let server = Server::start(&[]);
    let mut client = Client::connect(server.admin_addr);
    client.write([LIVEZ, "GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n", LIVEZ].concat());
    for _ in 0..3 {
        assert_eq!((client.response().status, client.has_read("400")), (200, false));
    }
    for byte in LIVEZ.bytes() {
        client.write([byte]);
    }
    assert_eq!(client.response().body, "ok\n");
    // More than is read in one turn.
    let many = 2_000;
    let mut writer = client.writer();
    let written = thread::spawn(move || writer.write_all(LIVEZ.repeat(many).as_bytes()));
    for _ in 0..many {
        assert_eq!(client.response().status, 200);
    }
    written.join().unwrap().unwrap();
    client.write("GET /livez HTTP/1.0\r\n\r\n");
    assert_eq!(client.response().status, 200);
    assert_eq!(client.try_response(), None, "HTTP/1.0 ends with the answer");
}

#[test]
fn a_client_that_has_closed_its_side_gets_its_answer() {
    let server = Server::start(&[]);
    let mut client = Client::connect(server.admin_addr);
    client.write(LIVEZ);
    client.writer().shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.response().body, "ok\n");
    assert_eq!(client.try_response(), None);
}

#[test]
fn what_two_parsers_could_read_in_two_ways_is_refused_and_ends_the_connection() {
    let server = Server::start(&[]);
    let put = |fields: &str, body: &str| {
        format!("PUT /log_filter HTTP/1.1\r\nhost: admin\r\n{fields}\r\n\r\n{body}{LIVEZ}")
    };
    for (bytes, status) in [
        (put("content-length: 5\r\ntransfer-encoding: chunked", "0\r\n\r\n"), 400),
        (put("content-length: 3\r\ncontent-length: 0", "off"), 400),
        (put("content-length: +3", "off"), 400),
        (put("transfer-encoding: gzip, chunked", "0\r\n\r\n"), 400),
        (put("transfer-encoding : chunked", "0\r\n\r\n"), 400),
        (put("x: y\r\n transfer-encoding: chunked", "0\r\n\r\n"), 400),
        (put("transfer-encoding: chunked", "zz\r\noff\r\n0\r\n\r\n"), 400),
        (put("host: other", ""), 400),
        ("GET /livez HTTP/1.1\r\n\r\n".to_owned(), 400),
        (LIVEZ.replace('\r', ""), 400),
        ("CONNECT admin:1 HTTP/1.1\r\nhost: admin\r\n\r\n".to_owned(), 501),
    ] {
        let response = told(&server, &bytes).unwrap_or_else(|| panic!("{bytes:?} has no answer"));
        assert!(response.status == status && response.says_close(), "{bytes:?}: {response:?}");
    }
    assert_eq!(told(&server, "\u{16}\u{3}\u{1}\n"), None, "a peer that does not speak HTTP is told nothing");
    assert_eq!(http::ask(server.admin_addr, "GET /log_filter").body, "info\n", "nothing was changed");
}

#[test]
fn a_head_without_an_end_is_refused_before_it_takes_memory() {
    let server = Server::start(&[]);
    let mut client = Client::connect(server.admin_addr);
    client.write("GET /livez HTTP/1.1\r\nhost: admin\r\n");
    let mut sent = 0;
    while sent < 64 << 20 && client.try_write("x-filler: 0123456789\r\n".repeat(1_000)) {
        sent += 22_000;
    }
    assert!(sent < 16 << 20, "{sent} bytes are taken");
    let told = told(&server, &format!("GET /livez HTTP/1.1\r\nhost: a\r\nx: {}", "x".repeat(17 << 10)));
    assert_eq!(told.map(|response| response.status), Some(431));
    assert_eq!(http::ask(server.admin_addr, "GET /livez").status, 200);
}

#[test]
fn heads_and_bodies_that_crawl_are_cut() {
    let server = Server::start(&[]);
    let begun = Instant::now();
    let crawling = [
        (408, "GET /livez HTTP/1.1\r\nhost: a\r\nx: "),
        (408, "PUT /log_filter HTTP/1.1\r\nhost: a\r\ncontent-length: 4000\r\n\r\n"),
        // The body of a page is no part of its request, so the answer does not wait for it.
        (200, "GET /livez HTTP/1.1\r\nhost: a\r\ncontent-length: 4000\r\n\r\n"),
    ];
    let peers = crawling.map(|(status, begin)| {
        let mut client = Client::connect(server.admin_addr);
        client.write(begin);
        let mut writer = client.writer();
        thread::spawn(move || {
            while writer.write_all(b"a").is_ok() {
                thread::sleep(Duration::from_millis(200));
            }
        });
        (status, client)
    });
    for (status, mut client) in peers {
        let response = client.response();
        assert_eq!(response.status, status, "{response:?}");
    }
    // Five seconds, and what a busy machine adds.
    assert!(begun.elapsed() < TEST_TIMEOUT, "{:?}", begun.elapsed());
    let policed = "user_service_policed_connections_total";
    let page = http::ask(server.admin_addr, "GET /metrics").body;
    assert!(http::sum(&page, policed, &["port=\"admin\"", "frames=\"incomplete\""]) > 0.5, "{page}");
}

/// A connection from another address of this machine.
fn from_another_address(addr: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0)).into()).unwrap();
    socket.connect(&addr.into()).unwrap();
    socket.into()
}

/// Whether the server has not closed a connection on which nothing was said.
fn is_open(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn a_probe_is_answered_while_another_address_has_all_the_connections_that_it_can() {
    const LIMIT: usize = 128;
    let mut server = Server::start(&[]);
    let mut hoarded = Vec::new();
    for _ in 0..20 {
        hoarded.retain(is_open);
        while hoarded.len() < LIMIT {
            hoarded.push(from_another_address(server.admin_addr));
        }
        assert_eq!(http::ask(server.admin_addr, "GET /livez").status, 200);
    }
    server.wait_for_line("connections to the admin port are refused");
    // Of the first ones alone, the last eighth.
    let refused = u32::try_from(LIMIT / 8).unwrap();
    wait_for_metric(&server, "user_service_admin_connections_refused_total", refused.into());
    let most = LIMIT * 7 / 8;
    let until = Instant::now() + TEST_TIMEOUT;
    while hoarded.len() > most {
        assert!(Instant::now() < until, "{} are open", hoarded.len());
        hoarded.retain(is_open);
    }
    assert!(hoarded.len() > LIMIT / 2, "{} are open", hoarded.len());
}
