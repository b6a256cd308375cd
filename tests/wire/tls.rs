//! TLS as peers see it: versions, groups, ALPN, h2spec, and how a connection ends.

use std::{
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use ::http::Request;
use rustls::{
    ClientConfig, HandshakeKind, NamedGroup, ProtocolVersion,
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    support::grpc_client::{GrpcClient, framed, head},
    support::{
        Server, TEST_TIMEOUT,
        certificates::{Files, SERVER_NAME, client_config, client_config_of},
        http,
    },
};

pub const CHECK: &str = "/grpc.health.v1.Health/Check";

pub fn check() -> Request<()> {
    head(CHECK).body(()).unwrap()
}

/// Makes the handshake with a server.
pub async fn shake(addr: SocketAddr, config: &ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(addr).await?;
    let name = SERVER_NAME.try_into().unwrap();
    TlsConnector::from(Arc::new(config.clone())).connect(name, stream).await
}

/// The value of a series on the admin port; 0 where there is none.
pub fn metric(server: &Server, series: &str) -> f64 {
    http::value(&http::ask(server.admin_addr, "GET /metrics").body, series).unwrap_or(0.0)
}

pub fn wait_for_metric(server: &Server, series: &str, at_least: f64) {
    let until = Instant::now() + TEST_TIMEOUT;
    while metric(server, series) < at_least {
        assert!(Instant::now() < until, "{series} is {}, not {at_least}", metric(server, series));
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn handshakes(outcome: &str) -> String {
    format!("grpc_server_tls_handshakes_total{{outcome=\"{outcome}\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_1_3_with_the_hybrid_group_is_negotiated() {
    let files = Files::new();
    let server = Server::start_with(&files.tls());
    let config = client_config(&[&files.authority], None);
    let stream = shake(server.grpc_addr, &config).await.unwrap();
    let session = stream.get_ref().1;
    assert_eq!(session.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let group = session.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
    assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
    let client = GrpcClient::over(stream).await.unwrap();
    assert_eq!(client.call(check(), framed(&[])).await.unwrap().code(), 0);
    assert_eq!(server.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_session_is_resumed_with_either_version() {
    let files = Files::new();
    let server = Server::start_with(&files.tls());
    for version in [&TLS13, &TLS12] {
        // The client would resume the first session in the second connection.
        let config = client_config_of(&[version], &[&files.authority], None);
        for _ in 0..2 {
            let stream = shake(server.grpc_addr, &config).await.unwrap();
            let session = stream.get_ref().1;
            assert_eq!(session.protocol_version(), Some(version.version));
            assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
            assert_ne!(session.handshake_kind(), Some(HandshakeKind::Resumed), "{version:?}");
            let client = GrpcClient::over(stream).await.unwrap();
            assert_eq!(client.call(check(), framed(&[])).await.unwrap().code(), 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_the_hybrid_group_gets_x25519() {
    let files = Files::new();
    let server = Server::start_with(&files.tls());
    let mut provider = (*user_service::tls::provider()).clone();
    provider.kx_groups.retain(|group| group.name() != NamedGroup::X25519MLKEM768);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(files.authority.der.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = shake(server.grpc_addr, &config).await.unwrap();
    let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519);
}

/// What `openssl s_client` says.
fn s_client(server: &Server, args: &[&str]) -> (bool, String) {
    let addr = server.grpc_addr.to_string();
    let output = Command::new("timeout")
        .args(["60", "openssl", "s_client", "-connect", &addr, "-alpn", "h2"])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn openssl_finds_no_old_version_and_no_weak_suite() {
    let files = Files::new();
    let server = Server::start_with(&files.tls());
    for version in ["-tls1_3", "-tls1_2"] {
        let (connected, said) = s_client(&server, &[version]);
        assert!(connected && said.contains("ALPN protocol: h2"), "{version}: {said}");
        assert!(!said.contains("Reused") && said.contains("Secure Renegotiation"), "{said}");
    }
    let suites = "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305";
    let (connected, said) = s_client(&server, &["-tls1_2", "-cipher", suites]);
    assert!(connected && said.contains("ECDHE-ECDSA"), "{said}");
    let weak = "ALL:!aNULL:!ECDHE-ECDSA-AES256-GCM-SHA384:!ECDHE-ECDSA-AES128-GCM-SHA256:\
                !ECDHE-ECDSA-CHACHA20-POLY1305:@SECLEVEL=0";
    for old in [
        &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"][..],
        &["-tls1", "-cipher", "ALL:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", weak],
    ] {
        let (connected, said) = s_client(&server, old);
        assert!(!connected, "{old:?}: {said}");
        assert!(said.contains("alert"), "the server does not say why: {old:?}: {said}");
    }
    wait_for_metric(&server, &handshakes("incompatible"), 3.0);
}

#[test]
fn every_case_of_h2spec_passes_over_tls() {
    let h2spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("bin/h2spec");
    assert!(h2spec.exists(), "bin/h2spec is missing: run `make tools`");
    let files = Files::new();
    let server = Server::start_with(&[files.tls(), vec!["--call-log".into(), "false".into()]].concat());
    let port = server.grpc_addr.port().to_string();
    let output = Command::new(h2spec)
        .args(["--host", "127.0.0.1", "--port", &port, "--tls", "--insecure", "--strict", "--timeout", "10"])
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && report.contains(" 0 skipped, 0 failed"), "{report}");
    assert_eq!(server.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_ends_with_goaway_close_notify_and_the_lingering_close() {
    let files = Files::new();
    // This peer answers no PING, so its grace ends the connection.
    let flags =
        ["--max-connection-idle-ms", "2000", "--max-connection-age-grace-ms", "500"].map(str::to_owned);
    let server = Server::start_with(&[files.tls(), flags.to_vec()].concat());
    let mut stream = shake(server.grpc_addr, &client_config(&[&files.authority], None)).await.unwrap();
    let settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    stream.write_all(settings).await.unwrap();
    let mut bytes = Vec::new();
    // Without a close_notify, rustls answers UnexpectedEof, and an RST fails as well.
    timeout(TEST_TIMEOUT, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
    let mut kinds = Vec::new();
    let mut rest = &bytes[..];
    while rest.len() >= 9 {
        kinds.push(rest[3]);
        let len = usize::from(rest[1]) << 8 | usize::from(rest[2]);
        rest = &rest[9 + len..];
    }
    assert!(kinds.contains(&crate::raw_http2::GOAWAY), "{kinds:?}");
    drop(stream);
    wait_for_metric(&server, "grpc_server_connections_closed_total{reason=\"idle\"}", 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_over_tls_survive_the_ages_of_their_connections_and_a_drain() {
    let files = Files::new();
    let age = ["--max-connection-age-ms".to_owned(), "2000".to_owned()];
    let server = Server::start_with(&[files.tls(), age.to_vec()].concat());
    let config = client_config(&[&files.authority], None);
    let (mut calls, mut connections) = (0, 0);
    while connections < 2 {
        let client = GrpcClient::over(shake(server.grpc_addr, &config).await.unwrap()).await.unwrap();
        connections += 1;
        loop {
            match client.call(check(), framed(&[])).await {
                Ok(answer) => assert_eq!(answer.code(), 0),
                Err(crate::support::grpc_client::Lost::Unprocessed) => break,
                Err(lost) => panic!("after {calls} calls: {lost:?}"),
            }
            calls += 1;
        }
    }
    let client = GrpcClient::over(shake(server.grpc_addr, &config).await.unwrap()).await.unwrap();
    assert_eq!(client.call(check(), framed(&[])).await.unwrap().code(), 0);
    wait_for_metric(&server, "grpc_server_connections_closed_total{reason=\"age\"}", 2.0);
    // An open connection does not hold up the drain.
    assert_eq!(server.stop().code(), Some(0));
    drop(client);
}

#[test]
fn a_plain_client_on_the_port_and_a_silent_one_are_counted_and_logged_without_an_address() {
    let files = Files::new();
    let deadline = ["--handshake-timeout-ms".to_owned(), "2000".to_owned()];
    let mut server = Server::start_with(&[files.tls(), deadline.to_vec()].concat());
    let mut silent = std::net::TcpStream::connect(server.grpc_addr).unwrap();
    for _ in 0..20 {
        let mut plain = std::net::TcpStream::connect(server.grpc_addr).unwrap();
        plain.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        // More than is read before it is refused, as a client with a request would send.
        plain.write_all(&[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &vec![0; 64 * 1_024]].concat()).unwrap();
        // An alert, and the end: no reset takes it away.
        let mut alert = Vec::new();
        plain.read_to_end(&mut alert).unwrap();
        assert_eq!(alert.first(), Some(&21), "{alert:?}");
    }
    wait_for_metric(&server, &handshakes("not_tls"), 20.0);
    wait_for_metric(&server, &handshakes("timeout"), 1.0);
    silent.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    match silent.read(&mut [0; 1]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("{other:?}"),
    }
    let lines: Vec<_> =
        server.log().iter().filter(|line| line.contains("TLS handshake failed")).cloned().collect();
    assert!((1..=3).contains(&lines.len()), "{lines:?}");
    assert!(lines.iter().all(|line| !line.contains("127.0.0.1")), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_handshakes_make_room_for_new_ones() {
    const LIMIT: usize = 1_024;
    let files = Files::new();
    let flags = ["--serving-threads", "1", "--handshake-timeout-ms", "3600000"].map(str::to_owned);
    let server = Server::start_with(&[files.tls(), flags.to_vec()].concat());
    let mut silent = Vec::new();
    for _ in 0..LIMIT + 50 {
        silent.push(TcpStream::connect(server.grpc_addr).await.unwrap());
    }
    let client = shake(server.grpc_addr, &client_config(&[&files.authority], None)).await.unwrap();
    let client = GrpcClient::over(client).await.unwrap();
    assert_eq!(client.call(check(), framed(&[])).await.unwrap().code(), 0);
    wait_for_metric(&server, &handshakes("evicted"), 50.0);
}

#[tokio::test]
async fn a_silent_handshake_holds_up_no_shutdown() {
    let files = Files::new();
    let hour = "3600000";
    let flags = ["--handshake-timeout-ms", hour, "--drain-timeout-ms", hour].map(str::to_owned);
    let server = Server::start_with(&[files.tls(), flags.to_vec()].concat());
    let _silent = TcpStream::connect(server.grpc_addr).await.unwrap();
    wait_for_metric(&server, "grpc_server_connections{state=\"handshake\"}", 1.0);
    assert!(server.stop().success());
}
