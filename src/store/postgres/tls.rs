//! TLS to the database.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    config::{Config, OptionalPath, PostgresUrl, TlsMode},
    tls::{self, ClientFiles},
};

pub(super) type TlsConnector = MakeRustlsConnect;

/// How connections are protected.
#[derive(Clone, Debug)]
pub(super) struct TlsSource {
    mode: TlsMode,
    files: ClientFiles,
}

impl TlsSource {
    pub fn new(url: &PostgresUrl, config: &Config) -> Self {
        let file = |path: &OptionalPath| path.path().map(PathBuf::from);
        let files = ClientFiles {
            ca: file(&config.store_ca_file),
            cert: file(&config.store_cert_file),
            key: file(&config.store_key_file),
        };
        Self { mode: url.tls, files }
    }

    /// What `sslmode` asks for, as libpq reads it: with a file of authorities,
    /// `require` checks the certificate too. `None` where there is to be no TLS. The files
    /// are read for each connection, because certificates are renewed.
    pub fn connector(&self) -> Result<Option<TlsConnector>, String> {
        let provider = tls::provider();
        let check = match (self.mode, &self.files.ca) {
            (TlsMode::Disable, _) => return Ok(None),
            (TlsMode::Prefer, _) | (TlsMode::Require, None) => CertificateCheck::Nothing,
            (TlsMode::VerifyFull, _) => CertificateCheck::Full(self.verifier(&provider)?),
            (TlsMode::VerifyCa | TlsMode::Require, _) => {
                CertificateCheck::Authority(self.verifier(&provider)?)
            }
        };
        let verifier = Arc::new(Verifier { check, provider: Arc::clone(&provider) });
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match self.files.identity()? {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| format!("store_cert_file cannot be used with store_key_file: {error}"))?,
        };
        Ok(Some(MakeRustlsConnect::new(config)))
    }

    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, String> {
        let roots = self.files.authorities()?.ok_or("store_ca_file names no file")?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .map_err(|error| format!("store_ca_file cannot be used: {error}"))
    }
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
