//! Client certificates: which are let in.

use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};
use rustls::version::{TLS12, TLS13};
use tokio::{io::AsyncReadExt, time::timeout};

use crate::{
    support::grpc_client::{GrpcClient, framed},
    support::{
        Server, TEST_TIMEOUT,
        certificates::{
            Authority, Files, Pair, SPIFFE_ID, client_config, client_config_of, dns, expired, named,
            self_signed, uri,
        },
    },
    tls::{check, handshakes, metric, shake, wait_for_metric},
};

/// Whether a client with this certificate can make a call, and else what the server says.
async fn call(server: &Server, files: &Files, shown: Option<&Pair>) -> Result<(), String> {
    let config = client_config(&[&files.authority], shown);
    let mut stream = shake(server.grpc_addr, &config).await.map_err(|error| error.to_string())?;
    // With TLS 1.3 the refusal comes after the client's handshake.
    timeout(TEST_TIMEOUT, stream.read_exact(&mut [0; 9]))
        .await
        .expect("the server answers in time")
        .map_err(|error| error.to_string())?;
    drop(stream);
    let client = GrpcClient::over(shake(server.grpc_addr, &config).await.unwrap()).await.unwrap();
    assert_eq!(client.call(check(), framed(&[])).await.unwrap().code(), 0);
    Ok(())
}

/// Each certificate that is refused, with the outcome that counts it and the alert.
fn refused(files: &Files) -> Vec<(&'static str, Pair, &'static str, &'static str)> {
    let (ours, stranger) = (&files.authority, Authority::new("stranger"));
    // By its name it could be ours.
    let impostor = Authority::new("authority");
    let id = [uri(SPIFFE_ID)];
    let mut early = named(&id);
    early.not_before = date_time_ymd(4_000, 1, 1);
    let mut servers_only = named(&id);
    servers_only.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let two = [uri(SPIFFE_ID), uri("spiffe://test/other")];
    let many: Vec<_> = (0..40).map(|number| dns(&format!("host-{number}.test"))).collect();
    let (untrusted, unusable) = ("certificate_untrusted", "certificate_unusable");
    vec![
        ("expired", ours.issue(&expired(&id)), "certificate_expired", "CertificateExpired"),
        ("not valid yet", ours.issue(&early), "certificate_expired", "CertificateExpired"),
        ("of another authority", stranger.client(), untrusted, "UnknownCA"),
        ("of an authority of the same name", impostor.client(), untrusted, "DecryptError"),
        ("self-signed", self_signed(&id), untrusted, "UnknownCA"),
        ("for servers", ours.issue(&servers_only), unusable, "UnsupportedCertificate"),
        ("with two URIs", ours.issue(&named(&two)), unusable, "CertificateUnknown"),
        ("with 40 names", ours.issue(&named(&many)), unusable, "CertificateUnknown"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn only_certificates_that_an_authority_vouches_for_and_with_clear_names_get_in() {
    let files = Files::new();
    for optional in [false, true] {
        let mut flags = files.mutual_tls();
        if optional {
            flags.extend(["--tls-client-auth".into(), "optional".into()]);
        }
        let server = Server::start_with(&flags);
        for good in [named(&[uri(SPIFFE_ID)]), named(&[dns("checkout.shop")]), named(&[])] {
            call(&server, &files, Some(&files.authority.issue(&good))).await.unwrap();
        }
        for (what, pair, outcome, alert) in refused(&files) {
            let before = metric(&server, &handshakes(outcome));
            let why = call(&server, &files, Some(&pair)).await.expect_err(what);
            assert!(why.contains("fatal alert"), "{what}: {why}");
            assert!(why.contains(alert), "{what}: {why}");
            wait_for_metric(&server, &handshakes(outcome), before + 1.0);
        }
        let without = call(&server, &files, None).await;
        if optional {
            without.unwrap();
        } else {
            let why = without.unwrap_err();
            assert!(why.contains("CertificateRequired"), "{why}");
            wait_for_metric(&server, &handshakes("no_certificate"), 1.0);
        }
        assert_eq!(server.stop().code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_without_its_key_is_refused() {
    let files = Files::new();
    let server = Server::start_with(&files.mutual_tls());
    let (good, other) = (files.authority.client(), files.authority.client());
    // Certificates are public, so a peer may show one of another client.
    let stolen = Pair { key: other.key, ..good.clone() };
    for version in [&TLS13, &TLS12] {
        let config = client_config_of(&[version], &[&files.authority], Some(&good));
        let client = GrpcClient::over(shake(server.grpc_addr, &config).await.unwrap()).await.unwrap();
        assert_eq!(client.call(check(), framed(&[])).await.unwrap().code(), 0);
        let config = client_config_of(&[version], &[&files.authority], Some(&stolen));
        let refused = match shake(server.grpc_addr, &config).await {
            Ok(mut stream) => timeout(TEST_TIMEOUT, stream.read_exact(&mut [0; 9])).await.unwrap().is_err(),
            Err(_) => true,
        };
        assert!(refused, "{version:?}");
    }
    wait_for_metric(&server, &handshakes("certificate_untrusted"), 2.0);
}
