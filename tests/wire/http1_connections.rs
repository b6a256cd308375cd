//! The life of HTTP/1.1 connections: deadlines, ages, the drain, and TLS.

use std::{sync::Arc, time::Duration};

use rustls::{ClientConnection, StreamOwned};

use crate::{
    listener_only::{ListenerOnly, closed, until},
    raw_http1::Client,
    raw_http2::{GOAWAY, Peer},
    support::{
        Server, TEST_TIMEOUT,
        certificates::{Files, SERVER_NAME, client_config},
        http,
    },
    tls::{handshakes, metric},
};
use user_service::{
    config::Config,
    listener::{Drained, Protocol},
};

/// A time limit that passes within a test, and in which a client on a busy machine has
/// connected and sent its first request.
const SHORT: Duration = Duration::from_secs(1);

fn config() -> Config {
    Config { serving_threads: 1, ..Config::default() }
}

#[test]
fn a_client_without_a_whole_head_is_cut_at_the_handshake_deadline() {
    let server = ListenerOnly::serve(Config { handshake_timeout: SHORT, ..config() });
    let mut dripping = Client::connect(server.addr);
    let mut bytes = "GET /now HTTP/1.1\r\nhost: x\r\nx: ".bytes().chain(std::iter::repeat(b'y'));
    until("it is cut", || !dripping.try_write([bytes.next().unwrap()]));
    server.wait_for_metric(&closed("handshake"), 1);
}

#[test]
fn an_old_connection_answers_its_next_request_and_says_that_it_closes() {
    let server = ListenerOnly::serve(Config { max_connection_age: SHORT, ..config() });
    let mut idle = Client::connect(server.addr);
    idle.get("/now");
    assert!(!idle.response().says_close());
    let mut busy = Client::connect(server.addr);
    busy.get("/wait");
    until("both are old", || server.metric("grpc_server_connections{state=\"closing\"}") == 2);
    idle.get("/now");
    server.open(1);
    for client in [&mut idle, &mut busy] {
        let response = client.response();
        assert_eq!((response.status, response.says_close()), (200, true), "{response:?}");
        assert_eq!(client.rest(), "");
    }
    server.wait_for_metric(&closed("age"), 2);
    assert_eq!(server.metric("grpc_server_calls_cut_total"), 0);
}

#[test]
fn an_old_connection_that_is_not_used_ends_after_its_grace() {
    let spans = Config { max_connection_age: SHORT, max_connection_age_grace: SHORT, ..config() };
    let server = ListenerOnly::serve(spans);
    let mut client = Client::connect(server.addr);
    client.get("/now");
    client.response();
    assert_eq!(client.rest(), "");
    server.wait_for_metric(&closed("age"), 1);
}

#[test]
fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let server = ListenerOnly::serve(Config { max_connection_idle: SHORT, ..config() });
    let mut busy = Client::connect(server.addr);
    busy.get("/wait-in-body");
    let mut idle = Client::connect(server.addr);
    idle.get("/now");
    idle.response();
    assert_eq!(idle.rest(), "");
    server.wait_for_metric(&closed("idle"), 1);
    server.open(1);
    assert_eq!(busy.response().body, "serve-0");
}

#[test]
fn a_connection_goes_on_after_a_pause_in_which_its_buffers_were_freed() {
    let mut server = ListenerOnly::serve(config());
    let mut client = Client::connect(server.addr);
    let paused = |server: &ListenerOnly| {
        until("it has paused", || server.connections().iter().all(|connection| connection.calls == 0));
    };
    for _ in 0..2 {
        client.write("POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 70000\r\n\r\n");
        client.write("a".repeat(70_000));
        assert_eq!(client.response().body, "70000");
        paused(&server);
        client.get("/wait");
        client.get("/now");
        server.open(1);
        assert_eq!((client.response().status, client.response().status), (200, 200));
        paused(&server);
    }
    let mut leaving = Client::connect(server.addr);
    leaving.get("/now");
    leaving.response();
    paused(&server);
    drop(leaving);
    server.wait_for_metric(&closed("client"), 1);
    let drain = server.drain(2 * TEST_TIMEOUT);
    until("it is told", || server.metric("grpc_server_connections{state=\"closing\"}") == 1);
    client.get("/now");
    assert!(client.response().says_close());
    assert_eq!(server.wait(drain), Drained::default());
}

#[test]
fn a_drain_answers_what_was_begun_and_what_is_on_its_way() {
    let mut server = ListenerOnly::serve(config());
    let [mut waiting, mut streaming, mut idle, mut silent] = [0; 4].map(|_| Client::connect(server.addr));
    waiting.get("/wait");
    streaming.get("/wait-in-body");
    until("the answer has begun", || streaming.has_read("\r\n\r\n"));
    idle.get("/now");
    idle.response();
    silent.get("/now");
    silent.response();
    until("both have calls", || {
        server.connections().iter().filter(|connection| connection.calls == 1).count() == 2
    });
    let drain = server.drain(2 * TEST_TIMEOUT);
    until("all are told", || server.metric("grpc_server_connections{state=\"closing\"}") == 4);
    // Sent before the client could know.
    idle.get("/now");
    let response = idle.response();
    assert_eq!((response.status, response.says_close()), (200, true), "{response:?}");
    assert_eq!((idle.rest().as_str(), silent.rest().as_str()), ("", ""));
    server.open(2);
    let response = waiting.response();
    assert_eq!((response.status, response.says_close()), (200, true), "{response:?}");
    assert_eq!(streaming.response().body, "serve-0");
    assert_eq!((waiting.rest().as_str(), streaming.rest().as_str()), ("", ""));
    assert_eq!(server.wait(drain), Drained::default());
    assert_eq!(server.metric(&closed("drain")), 4);
}

#[test]
fn what_outlasts_a_drain_is_cut_and_counted() {
    let mut server = ListenerOnly::serve(config());
    let mut client = Client::connect(server.addr);
    client.get("/wait");
    until("the call has begun", || server.connections().iter().any(|connection| connection.calls == 1));
    let drain = server.drain(SHORT / 2);
    assert_eq!(server.wait(drain), Drained { connections_cut: 1, calls_cut: 1 });
    assert!(client.try_response().is_none());
}

#[test]
fn a_client_that_does_not_take_its_answer_is_ended() {
    let server = ListenerOnly::serve(Config { keepalive_timeout: SHORT, ..config() });
    let mut client = Client::connect(server.addr);
    // Answers that are never read fill what the kernels keep.
    let requests = "GET /now HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1_000);
    until("it is ended", || !client.try_write(&requests));
    server.wait_for_metric(&closed("keepalive"), 1);
}

#[test]
fn connections_are_capped_whatever_they_speak() {
    let server = ListenerOnly::serve(Config { max_connections: 2, ..config() });
    let mut http1 = Client::connect(server.addr);
    http1.get("/now");
    http1.response();
    let mut http2 = Peer::connect(server.addr);
    http2.so_far();
    assert_eq!(Client::connect(server.addr).rest(), "");
    assert_eq!(server.metric("grpc_server_connections_refused_total"), 1);
    let spoken: Vec<_> = server.connections().iter().map(|connection| connection.protocol).collect();
    assert_eq!(spoken, [Some(Protocol::Http1), Some(Protocol::Http2)]);
    drop(http1);
    server.wait_for_metric(&closed("client"), 1);
}

#[test]
fn tls_clients_choose_by_alpn_and_without_it_by_their_first_bytes() {
    let files = Files::new();
    let server = Server::start_with(&files.tls());
    let shake = |protocols: &[&str]| {
        let mut config = client_config(&[&files.authority], None);
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let session = ClientConnection::new(Arc::new(config), SERVER_NAME.try_into().unwrap()).unwrap();
        let stream = Client::connect(server.grpc_addr).into_stream();
        let mut stream = StreamOwned::new(session, stream);
        let shaken = stream.conn.complete_io(&mut stream.sock).map(drop);
        let chosen = stream.conn.alpn_protocol().map(|name| String::from_utf8(name.to_vec()).unwrap());
        (stream, chosen, shaken)
    };
    let request = "POST /user.v1.UserService/GetUser HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    for (offered, expected) in
        [(&["http/1.1"][..], Some("http/1.1")), (&["http/1.0", "http/1.1"], Some("http/1.1")), (&[], None)]
    {
        let (stream, chosen, _) = shake(offered);
        assert_eq!(chosen.as_deref(), expected);
        let mut client = Client::over(stream);
        for _ in 0..2 {
            client.write(request);
            assert_eq!(client.response().status, 415, "no content type");
        }
    }
    for offered in [&["h2", "http/1.1"][..], &["http/1.1", "h2"], &[]] {
        let (stream, chosen, _) = shake(offered);
        assert_eq!(chosen.as_deref(), (!offered.is_empty()).then_some("h2"));
        let mut client = Client::over(stream);
        client.write(
            [crate::raw_http2::PREFACE, &crate::raw_http2::frame(crate::raw_http2::SETTINGS, 0, 0, &[])]
                .concat(),
        );
        assert_eq!(client.bytes(9)[3], crate::raw_http2::SETTINGS);
    }
    let (.., shaken) = shake(&["spdy/1"]);
    assert!(shaken.unwrap_err().to_string().contains("NoApplicationProtocol"));
    // What was chosen is what is spoken.
    let (stream, ..) = shake(&["h2"]);
    let mut client = Client::over(stream);
    client.write(request);
    let goaway = client.bytes(9);
    assert!(goaway[3] == GOAWAY || goaway[3] == crate::raw_http2::SETTINGS, "{goaway:?}");
    let (stream, ..) = shake(&["http/1.1"]);
    let mut client = Client::over(stream);
    client.write(crate::raw_http2::PREFACE);
    let said = client.rest();
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 "), "{said:?}");
    assert!(metric(&server, &handshakes("alpn")) > 0.5);
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn the_debug_page_tells_what_each_connection_speaks() {
    let server = Server::start(&[]);
    let mut client = Client::connect(server.grpc_addr);
    client.get("/");
    client.response();
    let mut peer = Peer::connect(server.grpc_addr);
    peer.so_far();
    let _silent = Client::connect(server.grpc_addr);
    until("all are listed", || {
        let page = http::ask(server.admin_addr, "GET /connections").body;
        let spoken: Vec<_> = page.lines().map(|line| line.split('\t').nth(2).unwrap().to_owned()).collect();
        spoken == ["PROTOCOL", "http/1", "http/2", "-"]
    });
    let page = http::ask(server.admin_addr, "GET /metrics").body;
    for protocol in ["http/1", "http/2"] {
        let series = format!("user_service_open_connections{{protocol=\"{protocol}\"}}");
        assert_eq!(http::value::<f64>(&page, &series), Some(1.0), "{series}");
    }
}

#[test]
fn an_answer_before_the_end_of_its_request_keeps_the_connection() {
    let server = Server::start(&[]);
    let mut client = Client::connect(server.grpc_addr);
    for _ in 0..2 {
        client.write(
            "POST /user.v1.UserService/Nothing HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
             content-length: 2\r\n\r\n{",
        );
        until("it is answered", || client.has_read("unimplemented"));
        client.write("}");
        let response = client.response();
        assert_eq!((response.status, response.says_close()), (404, false), "{response:?}");
    }
}
