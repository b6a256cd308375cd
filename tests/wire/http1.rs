//! HTTP/1.1 on the port of the API: who speaks what, whole requests, and what is refused.

use std::{io::Write, time::Duration};

use crate::{
    listener_only::{ListenerOnly, closed, until},
    raw_http1::Client,
    raw_http2::Peer,
};
use user_service::config::Config;

fn config() -> Config {
    Config { serving_threads: 1, ..Config::default() }
}

fn serve() -> ListenerOnly {
    ListenerOnly::serve(config())
}

#[test]
fn one_port_serves_http_1_and_http_2_by_the_first_bytes() {
    let server = serve();
    let mut http1 = Client::connect(server.addr);
    let mut http2 = Peer::connect(server.addr);
    for stream in [1, 3, 5] {
        http1.get("/now");
        let response = http1.response();
        assert_eq!((response.status, &*response.body), (200, "serve-0"));
        http2.call(stream, "/now");
        http2.wait_for_answer(stream);
    }
    assert_eq!(server.metric("grpc_server_connections{state=\"open\"}"), 2);
}

#[test]
fn first_bytes_may_come_one_by_one_and_resemble_those_of_http_2() {
    let server = serve();
    for request in ["GET /now HTTP/1.1\r\nhost: x\r\n\r\n", "PRI /now HTTP/1.1\r\nhost: x\r\n\r\n"] {
        let mut client = Client::connect(server.addr);
        for byte in request.bytes() {
            client.write([byte]);
        }
        assert_eq!(client.response().status, 200);
    }
}

#[test]
fn bodies_of_either_framing_arrive_whole() {
    let server = serve();
    let mut client = Client::connect(server.addr);
    for (length, chunk) in [(0, 1), (1, 1), (100, 7), (70_000, 1_000), (300_000, 300_000)] {
        client.write(format!("POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n"));
        client.write("a".repeat(length));
        assert_eq!(client.response().body, length.to_string());
        client.write("POST /length HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
        let mut left = length;
        while left > 0 {
            let size = chunk.min(left);
            client.write(format!("{size:x};ext=1\r\n{}\r\n", "a".repeat(size)));
            left -= size;
        }
        client.write("0\r\nx-trailer: 1\r\n\r\n");
        assert_eq!(client.response().body, length.to_string());
    }
}

#[test]
fn pipelined_requests_are_served_one_after_the_other() {
    let server = serve();
    let mut client = Client::connect(server.addr);
    let body = "POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc";
    let wait = "GET /wait HTTP/1.1\r\nhost: x\r\n\r\n";
    let now = "GET /now HTTP/1.1\r\nhost: x\r\n\r\n";
    client.write([body, wait, now, body].concat());
    assert_eq!(client.response().body, "3");
    server.open(1);
    assert_eq!(client.response().body, "serve-0");
    assert_eq!(client.response().body, "serve-0");
    assert_eq!(client.response().body, "3");
    // More than is read in one turn, or fits into any buffer.
    let many = 5_000;
    let mut writer = client.writer();
    let written = std::thread::spawn(move || writer.write_all(now.repeat(many).as_bytes()));
    for _ in 0..many {
        assert_eq!(client.response().status, 200);
    }
    written.join().unwrap().unwrap();
}

#[test]
fn what_two_parsers_could_read_in_two_ways_is_refused_and_ends_the_connection() {
    let server = serve();
    let smuggled = "GET /now HTTP/1.1\r\nhost: x\r\n\r\n";
    let post = |fields: &str, body: &str| {
        format!("POST /length HTTP/1.1\r\nhost: x\r\n{fields}\r\n\r\n{body}{smuggled}")
    };
    let forms = [
        post("content-length: 5\r\ntransfer-encoding: chunked", "0\r\n\r\n"),
        post("transfer-encoding: chunked\r\ncontent-length: 5", "0\r\n\r\n"),
        post("content-length: 3\r\ncontent-length: 3", "abc"),
        post("content-length: 3\r\ncontent-length: 0", "abc"),
        post("content-length: 3, 3", "abc"),
        post("content-length: +3", "abc"),
        post("content-length: 0x3", "abc"),
        post("transfer-encoding: chunked, identity", "0\r\n\r\n"),
        post("transfer-encoding: identity, chunked", "0\r\n\r\n"),
        post("transfer-encoding: gzip, chunked", "0\r\n\r\n"),
        post("transfer-encoding: xchunked", "0\r\n\r\n"),
        post("transfer-encoding: chunked\r\ntransfer-encoding: identity", "0\r\n\r\n"),
        post("transfer-encoding: chunked\r\ntransfer-encoding: chunked", "0\r\n\r\n"),
        post("transfer-encoding : chunked", "0\r\n\r\n"),
        post("transfer-encoding\t: chunked", "0\r\n\r\n"),
        post("x: y\r\n transfer-encoding: chunked", "0\r\n\r\n"),
        post("x: y\ntransfer-encoding: chunked", "0\r\n\r\n"),
        post("x: y\rtransfer-encoding: chunked", "0\r\n\r\n"),
        post("x: \0", ""),
        post("content-length: 3\n", "abc"),
        post("no-colon", ""),
        post("host: other", ""),
        "POST /length HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned() + smuggled,
        format!("GET /now HTTP/1.1\r\n\r\n{smuggled}"),
        format!("GET /now HTTP/1.1\nhost: x\n\n{smuggled}"),
        format!("GET /now\r\n\r\n{smuggled}"),
        format!("GET  /now HTTP/1.1\r\nhost: x\r\n\r\n{smuggled}"),
        format!("GET /now HTTP/1.1 \r\nhost: x\r\n\r\n{smuggled}"),
        format!("GET /now HTTP/3.0\r\nhost: x\r\n\r\n{smuggled}"),
        format!("\r\n\r\n{smuggled}"),
        format!("\n{smuggled}"),
    ];
    for form in &forms {
        let mut client = Client::connect(server.addr);
        client.write(form);
        let response = client.response();
        assert_eq!((response.status, response.says_close()), (400, true), "{form:?}: {response:?}");
        assert_eq!(client.rest(), "", "{form:?}");
    }
    server.wait_for_metric(&closed("error"), forms.len() as u64);
}

#[test]
fn what_is_not_http_is_told_nothing_and_closed() {
    let server = serve();
    // The second is the beginning of a TLS ClientHello, which has no end of a line.
    for opening in
        [&b"INVALID CONNECTION PREFACE\r\n\r\n"[..], &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], &[0; 100]]
    {
        let mut client = Client::connect(server.addr);
        client.write(opening);
        assert_eq!(client.rest(), "", "{opening:?}");
    }
    server.wait_for_metric(&closed("error"), 3);
}

#[test]
fn chunks_that_two_parsers_could_read_in_two_ways_end_the_connection_with_their_call() {
    let server = serve();
    for body in [
        "3 \r\nabc\r\n",
        "0x3\r\nabc\r\n",
        "3\nabc\r\n",
        "3;x\nabc\r\n",
        "3\r\nabcd\r\n",
        "3\r\nabc\n",
        "\r\n",
        "-1\r\n",
    ] {
        let mut client = Client::connect(server.addr);
        client.write("POST /length HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
        client.write(format!("{body}0\r\n\r\nGET /now HTTP/1.1\r\nhost: x\r\n\r\n"));
        let response = client.response();
        assert_eq!((response.status, response.says_close()), (400, true), "{body:?}: {response:?}");
        assert_eq!(client.rest(), "", "{body:?}");
    }
    until("no call is left", || server.connections().iter().all(|connection| connection.calls == 0));
}

#[test]
fn a_refusal_is_not_taken_for_the_answer_to_an_earlier_request() {
    let server = serve();
    let mut client = Client::connect(server.addr);
    client.write("GET /wait HTTP/1.1\r\nhost: x\r\n\r\nGET /now HTTP/1.1\nhost: x\n\n");
    server.open(1);
    assert_eq!(client.response().status, 200);
    assert_eq!(client.response().status, 400);
    assert_eq!(client.rest(), "");
    // Within an answer that has begun, nothing else is said.
    let mut client = Client::connect(server.addr);
    client.write("POST /wait-in-body HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    until("the answer has begun", || client.has_read("\r\n\r\n"));
    client.write("3 \r\n");
    assert!(!client.rest().contains(" 400 "));
}

#[test]
fn a_head_has_a_limit_of_bytes_and_of_fields() {
    let server = ListenerOnly::serve(Config { max_header_list_bytes: 9_000, ..config() });
    for (fields, status) in [
        ("x: y\r\n".repeat(90), 200),
        ("x: y\r\n".repeat(110), 431),
        (format!("x: {}\r\n", "y".repeat(8_000)), 200),
        (format!("x: {}\r\n", "y".repeat(9_000)), 431),
    ] {
        let mut client = Client::connect(server.addr);
        client.write(format!("GET /now HTTP/1.1\r\nhost: x\r\n{fields}\r\n"));
        assert_eq!(client.response().status, status, "{} bytes", fields.len());
    }
    let mut client = Client::connect(server.addr);
    client.write(format!("GET /now HTTP/1.1\r\nhost: x\r\nx: {}", "y".repeat(9_000)));
    assert_eq!(client.response().status, 431, "a head that does not end");
}

#[test]
fn nothing_is_upgraded_and_nothing_connected() {
    let server = serve();
    let mut client = Client::connect(server.addr);
    let upgrade =
        "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n";
    for _ in 0..2 {
        client.write(format!("GET /now HTTP/1.1\r\nhost: x\r\n{upgrade}\r\n"));
        assert_eq!(client.response().status, 200);
    }
    client.write("CONNECT x:1 HTTP/1.1\r\nhost: x:1\r\n\r\n");
    assert_eq!(client.response().status, 501);
    assert_eq!(client.rest(), "");
}

#[test]
fn a_client_that_expects_to_be_told_is_told_to_continue_once_its_body_is_read() {
    let server = serve();
    let mut client = Client::connect(server.addr);
    let head = |path| {
        format!("POST {path} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n")
    };
    client.write(head("/length"));
    assert_eq!(client.response().status, 100);
    client.write("abc");
    assert_eq!(client.response().body, "3");
    // A service that does not read the body answers without it, and the connection ends.
    client.write(head("/now"));
    let response = client.response();
    assert_eq!((response.status, response.says_close()), (200, true), "{response:?}");
    assert_eq!(client.rest(), "");
}

#[test]
fn a_client_of_http_1_0_reads_to_the_end_of_the_connection() {
    let server = serve();
    let mut client = Client::connect(server.addr);
    client.write("GET /now HTTP/1.0\r\n\r\n");
    let answer = client.rest();
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("\r\n\r\nserve-0"), "{answer}");
}

#[test]
fn a_client_that_leaves_takes_its_call_with_it() {
    let server = serve();
    let mut clients = Vec::new();
    for request in [
        "GET /wait HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /wait-in-body HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\na",
        "POST /length HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n",
    ] {
        let mut client = Client::connect(server.addr);
        client.write(request);
        clients.push(client);
    }
    let calls = || server.connections().iter().map(|connection| connection.calls).sum::<usize>();
    until("the calls have begun", || calls() == 4);
    drop(clients);
    until("the calls are gone", || calls() == 0);
    server.wait_for_metric(&closed("client"), 4);
}

#[test]
fn a_head_that_crawls_ends_the_connection() {
    let server = serve();
    let mut crawling = Client::connect(server.addr);
    crawling.get("/now");
    crawling.response();
    let mut bytes = "GET /now HTTP/1.1\r\nhost: x\r\nx: ".bytes().chain(std::iter::repeat(b'y'));
    until("it is ended", || {
        std::thread::sleep(Duration::from_millis(100));
        !crawling.try_write([bytes.next().unwrap()]) || crawling.has_read("\r\n\r\n")
    });
    server.wait_for_metric(&closed("policed"), 1);
    let policed = "user_service_policed_connections_total{port=\"grpc\",frames=\"incomplete\"}";
    assert_eq!(server.metric(policed), 1);
    let mut half = Client::connect(server.addr);
    half.write("GET /now HTTP/1.1\r\n");
    assert_eq!(half.response().status, 408);
    assert_eq!(half.rest(), "");
}

#[test]
fn tiny_chunks_cannot_keep_the_server_busy() {
    let server = serve();
    let mut client = Client::connect(server.addr);
    client.write("POST /length HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    let chunks = "1\r\na\r\n".repeat(1_000);
    until("it is ended", || !client.try_write(&chunks));
    server.wait_for_metric(&closed("policed"), 1);
    let policed = "user_service_policed_connections_total{port=\"grpc\",frames=\"data\"}";
    assert_eq!(server.metric(policed), 1);
}

#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let server = serve();
    let mut client = Client::connect(server.addr);
    client.write("POST /now HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n");
    for _ in 0..10 {
        client.write("a".repeat(100_000));
    }
    assert_eq!(client.response().status, 200);
    client.get("/now");
    assert_eq!(client.response().status, 200, "the connection goes on");
    // One that never ends is given up, after its answer.
    client.write("POST /now HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n");
    let part = "a".repeat(100_000);
    while client.try_write(&part) && !client.has_read("serve-0") {}
    assert!(client.rest().contains(" 200 OK"));
}
