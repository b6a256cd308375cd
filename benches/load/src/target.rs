//! The server under load, and what it is shown.

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc};

use http::HeaderValue;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use crate::Result;

#[derive(clap::Args)]
pub struct Options {
    /// Where the server listens.
    addr: SocketAddr,
    /// Use TLS, and check the server with these authorities (PEM).
    #[arg(long)]
    tls_ca: Option<PathBuf>,
    /// Show the server this certificate (PEM).
    #[arg(long, requires = "tls_ca", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The key of that certificate (PEM).
    #[arg(long)]
    tls_key: Option<PathBuf>,
    /// Send the token in this file with each call.
    #[arg(long)]
    token_file: Option<PathBuf>,
}

/// Clones share the configuration.
#[derive(Clone)]
pub struct Target {
    pub addr: SocketAddr,
    pub tls: Option<TlsConnector>,
    /// The value of `authorization`.
    pub authorization: Option<HeaderValue>,
}

impl Target {
    pub fn new(options: &Options) -> Result<Self> {
        let authorization = match &options.token_file {
            None => None,
            Some(path) => Some(format!("Bearer {}", fs::read_to_string(path)?.trim()).parse()?),
        };
        Ok(Self { addr: options.addr, tls: connector(options)?, authorization })
    }
}

fn connector(options: &Options) -> Result<Option<TlsConnector>> {
    let Some(ca) = &options.tls_ca else { return Ok(None) };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let mut config = match options.tls_cert.as_ref().zip(options.tls_key.as_ref()) {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => builder.with_client_auth_cert(
            vec![CertificateDer::from_pem_file(cert)?],
            PrivateKeyDer::from_pem_file(key)?,
        )?,
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Some(TlsConnector::from(Arc::new(config))))
}
