//! The admin port: what probes and scrapers get.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
};

use crate::{
    held_calls::{GET_USER, HeldCalls, until},
    support::{Server, TEST_TIMEOUT},
};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
use user_service::proto::health::HealthListRequest;

pub use crate::support::http::{Page, answer, ask};

#[test]
fn probes_get_one_word() {
    let server = Server::start(&[]);
    for path in ["/livez", "/readyz"] {
        let page = ask(server.admin_addr, &format!("GET {path}"));
        assert_eq!((page.status, page.body.as_str()), (200, "ok\n"), "{path}");
        assert_eq!(ask(server.admin_addr, &format!("HEAD {path}")).status, 200);
    }
}

#[tokio::test]
async fn a_head_request_over_http2_gets_a_head_alone() {
    let server = Server::start(&[]);
    let stream = tokio::net::TcpStream::connect(server.admin_addr).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    for (method, data) in [("HEAD", None), ("GET", Some(&b"ok\n"[..]))] {
        let request = http::Request::builder().method(method).uri("http://test/readyz").body(()).unwrap();
        let answer = client.send_request(request, true).unwrap().0.await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["content-length"]),
            (200, &"3".parse().unwrap())
        );
        let read = answer.into_body().data().await.map(Result::unwrap);
        assert_eq!(read.as_deref(), data, "{method}");
    }
}

#[test]
fn metrics_say_which_format_they_have() {
    let server = Server::start(&[]);
    let page = ask(server.admin_addr, "GET /metrics");
    assert_eq!(page.status, 200);
    assert!(page.head.contains("content-type: text/plain; version=0.0.4"), "{}", page.head);
    for name in ["process_resident_memory_bytes", "process_open_fds", "user_service_build_info"] {
        assert!(page.body.contains(name), "{name} is missing");
    }
}

#[test]
fn what_is_not_there_is_404_and_what_cannot_be_done_is_405() {
    let server = Server::start(&[]);
    for path in ["/", "/metrics/", "/grpc.health.v1.Health/Check", "/user.v1.UserService/GetUser"] {
        assert_eq!(ask(server.admin_addr, &format!("GET {path}")).status, 404, "{path}");
    }
    let page = ask(server.admin_addr, "POST /metrics");
    assert_eq!(page.status, 405);
    assert!(page.head.contains("allow: get, head"), "{}", page.head);
}

/// Sends a filter and reads the answer.
fn put_filter(addr: SocketAddr, filter: &str) -> Page {
    answer(
        addr,
        &format!(
            "PUT /log_filter HTTP/1.1\r\nhost: admin\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{filter}",
            filter.len()
        ),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_filter_is_changed_while_the_server_runs() {
    let mut server = Server::start(&["--log-filter", "info"]);
    let caller = HeldCalls::connect(server.grpc_addr).await;
    let addr = server.admin_addr;
    assert_eq!(ask(addr, "GET /log_filter").body, "info\n");
    let quiet = put_filter(addr, "info,user_service::call=off");
    assert_eq!((quiet.status, quiet.body.as_str()), (200, "info,user_service::call=off\n"));
    caller.call("/not.logged/Call", &[]).await;
    for bad in ["no=such=filter", "user_service=loud"] {
        let refused = put_filter(addr, bad);
        assert_eq!(refused.status, 400, "{bad}: {}", refused.body);
    }
    for blank in ["", " \n"] {
        let refused = put_filter(addr, blank);
        let why = "log_filter must be a text that is not empty, not \"\"\n";
        assert_eq!((refused.status, refused.body.as_str()), (400, why), "it would silence the log");
    }
    assert_eq!(put_filter(addr, &"x".repeat(5_000)).status, 413);
    assert_eq!(
        ask(addr, "GET /log_filter").body,
        "info,user_service::call=off\n",
        "the bad ones changed nothing"
    );
    assert_eq!(put_filter(addr, "info\n").status, 200);
    caller.call(GET_USER, &[]).await;
    let line = server.wait_for_line("\"user_service::call\"");
    assert!(line.contains("user.v1.UserService/GetUser"), "{line}");
}

#[test]
fn what_is_under_way_is_shown_to_this_machine_alone() {
    // No packet goes to it; the address is that of the interface which would send one.
    let outward = UdpSocket::bind("0.0.0.0:0").unwrap();
    let routed = outward.connect("192.0.2.1:9").and_then(|()| outward.local_addr());
    let Some(own) = routed.ok().map(|addr| addr.ip()).filter(|ip| !ip.is_loopback()) else {
        eprintln!("not tested: this machine has no address but loopback");
        return;
    };
    let server = Server::start(&["--admin-addr", "0.0.0.0:0"]);
    let outside = SocketAddr::new(own, server.admin_addr.port());
    let inside = SocketAddr::from(([127, 0, 0, 1], server.admin_addr.port()));
    for page in ["GET /calls", "GET /connections", "GET /log_filter", "PUT /log_filter"] {
        let refused = ask(outside, page);
        assert_eq!(refused.status, 403, "{page}: {}", refused.body);
        assert!(!refused.body.contains("AGE_MS"), "{page}: {}", refused.body);
    }
    assert_eq!(put_filter(outside, "off").status, 403);
    assert_eq!(ask(inside, "GET /log_filter").body, "info\n", "nothing was changed");
    assert_eq!(ask(outside, "GET /metrics").status, 200);
    assert_eq!(ask(inside, "GET /calls").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_connections_are_listed_while_they_last() {
    let server = Server::start(&[]);
    let addr = server.admin_addr;
    let rows = |page: &str| ask(addr, page).body.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!((rows("GET /calls"), rows("GET /connections")), (vec![], vec![]));
    let caller = HeldCalls::connect(server.grpc_addr).await;
    let held = caller.open(GET_USER, &[("x-secret", "marked")]);
    let mut watching = caller.health();
    let watched = watching.watch(HealthCheckRequest::default()).await.unwrap();
    let calls = until(|| Some(rows("GET /calls")).filter(|rows| rows.len() == 2)).await;
    let methods: Vec<_> = calls.iter().map(|row| row.split('\t').nth(1).unwrap()).collect();
    assert!(methods.contains(&"user.v1.UserService/GetUser"), "{calls:?}");
    assert!(methods.contains(&"grpc.health.v1.Health/Watch"), "{calls:?}");
    // A connection is open once the turn has ended in which it brought its first calls.
    let is_open = |rows: &Vec<String>| rows.iter().all(|row| row.split('\t').nth(1) == Some("open"));
    let connections = until(|| Some(rows("GET /connections")).filter(is_open)).await;
    let columns: Vec<_> = connections[0].split('\t').collect();
    assert_eq!((connections.len(), columns[4]), (1, "2"), "{connections:?}");
    let other = HeldCalls::connect(server.grpc_addr).await;
    let of_another = other.open(GET_USER, &[]);
    let calls = until(|| Some(rows("GET /calls")).filter(|rows| rows.len() == 3)).await;
    let numbers: Vec<_> = calls.iter().map(|row| row.split('\t').nth(2).unwrap()).collect();
    let connections = rows("GET /connections");
    let listed: Vec<_> = connections.iter().map(|row| row.split('\t').nth(6).unwrap()).collect();
    assert_eq!(numbers, [listed[0], listed[0], listed[1]], "{calls:?} {connections:?}");
    assert_ne!(listed[0], listed[1]);
    assert_eq!(of_another.finish().await.code(), tonic::Code::NotFound);
    drop(other);
    assert_eq!(held.finish().await.code(), tonic::Code::NotFound);
    drop(watched);
    drop((watching, caller));
    until(|| (rows("GET /calls").is_empty() && rows("GET /connections").is_empty()).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_served_over_clear_text_http2() {
    let server = Server::start(&[]);
    let mut health = HeldCalls::connect(server.admin_addr).await.health();
    let checked = health.check(HealthCheckRequest { service: String::new() }).await.unwrap();
    assert_eq!(checked.into_inner().status(), ServingStatus::Serving);
    let listed = health.list(HealthListRequest {}).await.unwrap().into_inner().statuses;
    assert!(listed.contains_key("liveness"), "{listed:?}");
    // The API is not on this port.
    let status = HeldCalls::connect(server.admin_addr).await.call("/user.v1.UserService/GetUser", &[]).await;
    assert!(status.message().contains("404 Not Found"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_drain_the_server_is_live_and_not_ready() {
    let mut server = Server::start(&["--shutdown-delay-ms", "600000"]);
    let mut health = HeldCalls::connect(server.admin_addr).await.health();
    let mut watched = health.watch(HealthCheckRequest { service: String::new() }).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    server.signal("TERM");
    server.wait_for_line("\"draining\"");
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    until(|| (ask(server.admin_addr, "GET /readyz").status == 503).then_some(())).await;
    assert_eq!(ask(server.admin_addr, "GET /readyz").body, "unavailable\n");
    assert_eq!(ask(server.admin_addr, "GET /livez").status, 200);
    let live = health.check(HealthCheckRequest { service: "liveness".into() }).await.unwrap();
    assert_eq!(live.into_inner().status(), ServingStatus::Serving);
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let server = Server::start(&[]);
    let mut stream = TcpStream::connect(server.admin_addr).unwrap();
    stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    let filler = "x".repeat(64 * 1_024);
    // The server may close before it has read all of it.
    let _ = write!(stream, "GET /livez HTTP/1.1\r\nhost: admin\r\nx-filler: {filler}\r\n\r\n");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(ask(server.admin_addr, "GET /livez").status, 200, "others are served");
}
