//! What tests of TLS begin with: a server with a new certificate, and connections to it.

use std::{fs, net::SocketAddr, sync::Arc};

use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use super::Tls;
use crate::{config::Config, tls::provider};

const SERVER_NAME: &str = "users.test";

/// TLS with a new certificate, and that certificate.
pub fn server() -> (Tls, CertificateDer<'static>) {
    let folder = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new([SERVER_NAME.to_owned()]).unwrap();
    let cert = params.self_signed(&key).unwrap();
    let write = |name: &str, pem: String| {
        let path = folder.path().join(name);
        fs::write(&path, pem).unwrap();
        path.into()
    };
    let config = Config {
        tls_cert_file: write("cert", cert.pem()),
        tls_key_file: write("key", key.serialize_pem()),
        ..Config::default()
    };
    (Tls::load(&config).unwrap().expect("files are named"), cert.der().clone())
}

/// Both ends of a connection: the server's and the client's. The client's kernel takes little
/// that is not read.
pub async fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr: SocketAddr = listener.local_addr().unwrap();
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    client.set_recv_buffer_size(4 * 1_024).unwrap();
    client.connect(&addr.into()).unwrap();
    client.set_nonblocking(true).unwrap();
    let client = TcpStream::from_std(client.into()).unwrap();
    (listener.accept().await.unwrap().0, client)
}

/// The same with TLS.
pub async fn tls_connection()
-> (tokio_rustls::server::TlsStream<TcpStream>, tokio_rustls::client::TlsStream<TcpStream>) {
    let (tls, certificate) = server();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let (server, client) = connection().await;
    let connecting = connector.connect(SERVER_NAME.try_into().unwrap(), client);
    let (server, client) = tokio::join!(tls.acceptor().accept(server), connecting);
    (server.unwrap(), client.unwrap())
}
