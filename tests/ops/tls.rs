//! TLS as operators meet it: at the start, in the commands, and towards a collector.

use std::{fs, net::SocketAddr, process::Command, sync::Arc};

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};
use rustls::{ServerConfig, server::WebPkiClientVerifier};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use user_service::tls;

use crate::{
    cli::Cli,
    collector::Collector,
    support::{
        Server,
        certificates::{Authority, Files, SERVER_NAME, dns, expired, named},
        http,
    },
};

fn strs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

#[test]
fn half_of_tls_is_refused_as_wrong_usage() {
    let (cli, files) = (Cli::new(), Files::new());
    let (cert, key, ca) = (files.path("server.pem"), files.path("server.key"), files.path("ca.pem"));
    for (args, missing) in [
        (&["--tls-cert-file", &cert][..], "tls_key_file"),
        (&["--tls-key-file", &key], "tls_cert_file"),
        (&["--tls-client-ca-file", &ca], "tls_cert_file"),
        (&["--tls-issuer-ca-file", &ca], "tls_cert_file"),
        (
            &["--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-client-auth", "optional"],
            "tls_client_ca_file",
        ),
        (&["--store-cert-file", &cert], "store_key_file"),
        (&["--store-key-file", &key], "store_cert_file"),
    ] {
        let refused = cli.run(&[&["--store-url", "memory:"], args].concat());
        assert_eq!(refused.code, Some(64), "{args:?}: {}", refused.err);
        assert!(refused.err.contains(&format!("needs {missing}, too")), "{args:?}: {}", refused.err);
    }
}

#[test]
fn files_that_will_not_do_are_named_and_nothing_starts() {
    let (cli, files, other) = (Cli::new(), Files::new(), Authority::new("other"));
    let old = files.authority.issue(&expired(&[dns(SERVER_NAME)]));
    let (good, good_key) = (files.authority.server(), other.server().key);
    let long = good.cert.repeat(11);
    let with_old = format!("{}{}", good.cert, old.cert);
    for (name, content, why) in [
        ("server.pem", "", "holds no certificate"),
        ("server.pem", old.cert.as_str(), "certificate 1 expired"),
        ("server.pem", &with_old, "certificate 2 expired"),
        ("server.pem", &long, "holds more than 10 certificates"),
        ("server.key", &good_key, "is not the key of the first certificate"),
        ("server.key", "S3cret", "holds no private key"),
        ("ca.pem", "S3cret", "holds no certificate"),
    ] {
        files.write_pair("server", &good);
        files.write("ca.pem", &files.authority.pem);
        files.write(name, content);
        let flags = files.mutual_tls();
        let refused = cli.run(&[&["--store-url", "memory:"], &strs(&flags)[..]].concat());
        assert_eq!(refused.code, Some(1), "{name}: {}", refused.err);
        let file = files.path(name);
        assert!(refused.err.contains(why) && refused.err.contains(&file), "{name}: {}", refused.err);
        assert!(!refused.err.contains("S3cret"), "{}", refused.err);
    }
    fs::remove_file(files.path("server.pem")).unwrap();
    let flags = files.tls();
    let refused = cli.run(&[&["--store-url", "memory:"], &strs(&flags)[..]].concat());
    assert!(refused.err.contains("server.pem"), "{}", refused.err);
}

#[test]
fn a_certificate_that_its_own_authority_does_not_vouch_for_is_not_served() {
    let (cli, files) = (Cli::new(), Files::new());
    let ours = &files.authority;
    // By its name it could be ours.
    let (other, impostor) = (Authority::new("other"), Authority::new("authority"));
    let between = ours.intermediate("between");
    let pair_of_ours = ours.server();
    let mut for_clients = named(&[dns(SERVER_NAME)]);
    for_clients.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let issuer = files.path("issuer.pem");
    let flags = [files.tls(), vec!["--tls-issuer-ca-file".into(), issuer.clone()]].concat();
    let (cert, by_issuer) = (files.path("server.pem"), format!("by the authorities in {issuer}"));
    for (what, pair, issuer_pem, says) in [
        ("another authority", &other.server(), &ours.pem, [&cert, &by_issuer, "none of them has issued it"]),
        ("one of the same name", &impostor.server(), &ours.pem, [&cert, &by_issuer, "none of them"]),
        ("no intermediate", &between.server(), &ours.pem, [&cert, &by_issuer, "lack a certificate between"]),
        ("for clients", &ours.issue(&for_clients), &ours.pem, [&cert, &by_issuer, "key usage"]),
        ("no authority in the file", &pair_of_ours, &pair_of_ours.key, [&issuer, "no certificate", ""]),
        (
            "an expired authority",
            &pair_of_ours,
            &ours.issue(&expired(&[])).cert,
            [&issuer, "only expired", ""],
        ),
    ] {
        files.write_pair("server", pair);
        files.write("issuer.pem", issuer_pem);
        let refused = cli.run(&[&["--store-url", "memory:"], &strs(&flags)[..]].concat());
        assert_eq!(refused.code, Some(1), "{what}: {}", refused.err);
        assert!(says.iter().all(|part| refused.err.contains(part)), "{what}: {}", refused.err);
    }
    let leaf = between.server();
    files.write_pair("server", &leaf);
    files.write("server.pem", &format!("{}{}", leaf.cert, between.pem));
    // Next to an authority that is to come, because the two overlap while one replaces the other.
    files.write("issuer.pem", &format!("{}{}", other.pem, ours.pem));
    assert_eq!(Server::start_with(&flags).stop().code(), Some(0));
}

#[test]
fn the_metrics_say_for_how_long_the_whole_chain_is_valid() {
    const METRIC: &str = "user_service_tls_certificate_not";
    let files = Files::new();
    let new_year = |year| date_time_ymd(year, 1, 1);
    let of_years = |first, last| {
        let mut params = named(&[dns(SERVER_NAME)]);
        (params.not_before, params.not_after) = (new_year(first), new_year(last));
        files.authority.issue(&params)
    };
    let seconds = |year| new_year(year).unix_timestamp();
    let leaf = of_years(2_010, 2_200);
    files.write_pair("server", &leaf);
    files.write("server.pem", &format!("{}{}", leaf.cert, of_years(2_000, 2_100).cert));
    let interval = ["--tls-reload-interval-ms", "100"].map(String::from);
    let mut server = Server::start_with(&[files.tls(), interval.to_vec()].concat());
    let says = |server: &Server, end: &str| -> Option<i64> {
        http::value(
            &http::ask(server.admin_addr, "GET /metrics").body,
            &format!("{METRIC}_{end}_timestamp_seconds"),
        )
    };
    assert_eq!(says(&server, "before"), Some(seconds(2_010)), "since when the first certificate is");
    assert_eq!(says(&server, "after"), Some(seconds(2_100)), "until when all of them are");
    files.write_pair("server", &of_years(2_020, 2_300));
    server.wait_for_line("the TLS files have changed and are live");
    assert_eq!(says(&server, "before"), Some(seconds(2_020)));
    assert_eq!(says(&server, "after"), Some(seconds(2_300)));
}

#[test]
fn a_port_without_tls_says_so_once_at_the_start() {
    let files = Files::new();
    for (flags, warnings) in [(Vec::new(), 1), (files.tls(), 0), (files.mutual_tls(), 0)] {
        let mut server = Server::start_with(&flags);
        let off = server.log().iter().filter(|line| line.contains("TLS is off")).count();
        assert_eq!(off, warnings, "{flags:?}");
    }
}

#[test]
fn the_commands_call_a_server_that_wants_certificates() {
    let (cli, files) = (Cli::new(), Files::new());
    let server = Server::start_with(&files.mutual_tls());
    let addr = format!("localhost:{}", server.grpc_addr.port());
    let (ca, cert, key) = (files.path("ca.pem"), files.path("client.pem"), files.path("client.key"));
    let shown = ["--tls-ca", &ca, "--tls-cert", &cert, "--tls-key", &key];
    let checked = cli.run(&[&["check", &addr, "--connect-timeout-ms", "20000"], &shown[..]].concat());
    assert_eq!((checked.code, checked.out.as_str()), (Some(0), "SERVING\n"), "{}", checked.err);
    let named = cli.run(
        &[&["check", &addr, "--connect-timeout-ms", "20000", "--tls-server-name", SERVER_NAME], &shown[..]]
            .concat(),
    );
    assert_eq!(named.code, Some(0), "{}", named.err);
    let tried = cli.run(&[&["smoke", &addr], &shown[..]].concat());
    assert_eq!(tried.code, Some(0), "{}{}", tried.out, tried.err);
    let users = "{\"name\":\"Ada\",\"email\":\"ada@example.com\",\"age\":36,\"id\":\"ada\"}\n";
    let source = files.write("users.jsonl", users);
    let source = source.to_str().unwrap();
    let imported = cli.run(&[&["import", "--server", &addr, source], &shown[..]].concat());
    assert_eq!(imported.code, Some(0), "{}", imported.err);
    let exported = cli.run(&[&["export", "--server", &addr], &shown[..]].concat());
    assert!(exported.code == Some(0) && exported.out.contains("ada@example.com"), "{}", exported.err);

    let stranger = Authority::new("stranger");
    files.write("stranger.pem", &stranger.pem);
    files.write_pair("stranger", &stranger.client());
    files.write("other-ca.pem", &stranger.pem);
    let (other_ca, other_cert, other_key) =
        (files.path("other-ca.pem"), files.path("stranger.pem"), files.path("stranger.key"));
    for (flags, why) in [
        (&["--tls-ca", &ca][..], "CertificateRequired"),
        (&["--tls-ca", &ca, "--tls-cert", &other_cert, "--tls-key", &other_key], "UnknownCA"),
        (&["--tls-ca", &other_ca, "--tls-cert", &cert, "--tls-key", &key], "UnknownIssuer"),
        (&["--tls"], "UnknownIssuer"),
        (&[&shown[..], &["--tls-server-name", "other.test"]].concat(), "not valid for name"),
        (&[], "not speak HTTP/2"),
    ] {
        let refused = cli.run(&[&["check", &addr, "--connect-timeout-ms", "20000"], flags].concat());
        assert!(refused.code == Some(2) && refused.err.contains(why), "{flags:?}: {}", refused.err);
    }
    for (flags, why) in
        [(&["--tls-cert", &cert][..], "needs its key"), (&["--tls-ca", "/nowhere"], "/nowhere")]
    {
        let refused = cli.run(&[&["smoke", &addr], flags].concat());
        assert!(refused.code == Some(64) && refused.err.contains(why), "{flags:?}: {}", refused.err);
    }
}

/// Puts TLS in front of a collector, and lets in clients of this authority alone.
fn tls_in_front(addr: SocketAddr, files: &Files) -> SocketAddr {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(files.authority.der.clone()).unwrap();
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider()).build().unwrap();
    let pair = files.authority.server();
    let config = ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![pair.der], tls::private_key(pair.key.as_bytes()).unwrap())
        .unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            send.send(listener.local_addr().unwrap()).unwrap();
            let acceptor = TlsAcceptor::from(Arc::new(config));
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut outside = acceptor.accept(stream).await.ok()?;
                    let mut inside = TcpStream::connect(addr).await.ok()?;
                    copy_bidirectional(&mut outside, &mut inside).await.ok()
                });
            }
        });
    });
    receive.recv().unwrap()
}

#[test]
fn spans_reach_a_collector_over_https_that_wants_a_certificate() {
    let (files, collector) = (Files::new(), Collector::start());
    let front = tls_in_front(collector.addr, &files);
    let mut command = Command::new(env!("CARGO_BIN_EXE_user-service"));
    command
        .args(["--store-url", "memory:"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("https://localhost:{}", front.port()))
        .env("OTEL_BSP_SCHEDULE_DELAY", "20")
        .env("OTEL_EXPORTER_OTLP_CERTIFICATE", files.path("ca.pem"))
        .env("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", files.path("client.pem"))
        .env("OTEL_EXPORTER_OTLP_CLIENT_KEY", files.path("client.key"));
    let server = Server::spawn(command);
    let called = Cli::new().run(&["smoke", &server.grpc_addr.to_string()]);
    assert_eq!(called.code, Some(0), "{}", called.out);
    let (_, spans) = collector.spans(1);
    assert_eq!(spans[0].kind(), SpanKind::Server);
}

#[test]
fn a_collectors_certificate_file_that_is_not_there_ends_the_start() {
    let refused = Cli::new().run_with(
        &["--store-url", "memory:"],
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://localhost:1"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere.pem"),
        ],
    );
    assert!(refused.code == Some(64) && refused.err.contains("/nowhere.pem"), "{}", refused.err);
}
