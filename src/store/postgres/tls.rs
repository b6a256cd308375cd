//! TLS to the database.

use std::{fs, path::Path, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{PostgresUrl, TlsMode};

pub(super) type TlsConnector = MakeRustlsConnect;

/// Why the file of authorities will not do.
#[derive(Debug)]
pub(super) struct BadCertificates(pub String);

/// What `sslmode` asks for, as libpq reads it: with a file of authorities,
/// `require` checks the certificate too. `None` where there is to be no TLS.
pub(super) fn connector(
    url: &PostgresUrl,
    ca_file: Option<&Path>,
) -> Result<Option<TlsConnector>, BadCertificates> {
    let provider = Arc::new(ring::default_provider());
    let check = match (url.tls, ca_file) {
        (TlsMode::Disable, _) => return Ok(None),
        (TlsMode::Prefer, _) | (TlsMode::Require, None) => CertificateCheck::Nothing,
        (TlsMode::VerifyFull, file) => CertificateCheck::Full(verifier(file, &provider)?),
        (TlsMode::VerifyCa | TlsMode::Require, file) => {
            CertificateCheck::Authority(verifier(file, &provider)?)
        }
    };
    let verifier = Arc::new(Verifier { check, provider: Arc::clone(&provider) });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| BadCertificates(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(Some(MakeRustlsConnect::new(config)))
}

fn verifier(
    file: Option<&Path>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, BadCertificates> {
    let path = file.ok_or_else(|| BadCertificates("store_ca_file names no file".into()))?;
    let bad = |why: &dyn std::fmt::Display| BadCertificates(format!("{}: {why}", path.display()));
    let mut roots = RootCertStore::empty();
    let pem = fs::read(path).map_err(|error| bad(&error))?;
    // A byte order mark would hide the first certificate.
    let pem = pem.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&pem);
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| bad(&error))?;
        roots.add(certificate).map_err(|error| bad(&error))?;
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| bad(&error))
}

#[derive(Debug)]
enum CertificateCheck {
    /// Keeps out listeners, not impostors.
    Nothing,
    Authority(Arc<WebPkiServerVerifier>),
    Full(Arc<WebPkiServerVerifier>),
}

#[derive(Debug)]
struct Verifier {
    check: CertificateCheck,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verify = |verifier: &WebPkiServerVerifier| {
            verifier.verify_server_cert(certificate, intermediates, name, ocsp, now)
        };
        match &self.check {
            CertificateCheck::Nothing => Ok(ServerCertVerified::assertion()),
            CertificateCheck::Full(verifier) => verify(verifier),
            // The name is checked last.
            CertificateCheck::Authority(verifier) => match verify(verifier) {
                Err(rustls::Error::InvalidCertificate(
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                )) => Ok(ServerCertVerified::assertion()),
                answer => answer,
            },
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
