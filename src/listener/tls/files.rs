//! The files of the port's TLS: read together, checked together.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustls::{
    CertificateError, Error, RootCertStore, ServerConfig,
    client::verify_server_cert_signed_by_trust_anchor,
    pki_types::{CertificateDer, UnixTime},
    server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use sha2::{Digest, Sha256};

use super::client_certificate::KnownClients;
use crate::{
    config::{ClientAuth, Config},
    tls::{certificates, private_key, provider, read, roots},
};

/// The longest chain that is presented. Clients bound it as well.
const MAX_CHAIN: usize = 10;

/// Where the files are.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    client_auth: ClientAuth,
    issuer_ca: Option<PathBuf>,
}

/// The bytes of all files at about the same time.
pub struct ReadFiles {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
    issuer_ca: Option<Vec<u8>>,
}

/// Tells two sets of files apart.
pub type Fingerprint = [u8; 32];

/// A set of files that may go live.
#[derive(Debug)]
pub struct Checked {
    pub config: Arc<ServerConfig>,
    pub validity: Validity,
}

/// How long a chain is valid.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    /// Since when its first certificate is.
    pub not_before: SystemTime,
    /// Until when all of its certificates are.
    pub not_after: SystemTime,
}

impl ReadFiles {
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hash = Sha256::new();
        for part in [&self.cert, &self.key].into_iter().chain(&self.client_ca).chain(&self.issuer_ca) {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}

impl TlsFiles {
    /// `None` where TLS is off. The configuration was checked to name both or neither.
    pub fn from_config(config: &Config) -> Option<Self> {
        let (cert, key) = config.tls_cert_file.path().zip(config.tls_key_file.path())?;
        Some(Self {
            cert: cert.into(),
            key: key.into(),
            client_ca: config.tls_client_ca_file.path().map(Path::to_owned),
            client_auth: config.tls_client_auth,
            issuer_ca: config.tls_issuer_ca_file.path().map(Path::to_owned),
        })
    }

    /// Reads every file.
    ///
    /// # Errors
    /// Names the first file that cannot be read.
    pub fn read(&self) -> Result<ReadFiles, String> {
        let file = |path: &PathBuf| read(path).map_err(|error| of(path, &error));
        Ok(ReadFiles {
            cert: file(&self.cert)?,
            key: file(&self.key)?,
            client_ca: self.client_ca.as_ref().map(file).transpose()?,
            issuer_ca: self.issuer_ca.as_ref().map(file).transpose()?,
        })
    }

    /// Checks a set: the chain parses and is valid now, the key fits its first certificate,
    /// the given issuer vouches for it, and the authorities of clients parse.
    ///
    /// # Errors
    /// Names the file and why it will not do.
    pub fn check(&self, files: &ReadFiles, now: SystemTime) -> Result<Checked, String> {
        let chain = certificates(&files.cert).map_err(|why| of(&self.cert, &why))?;
        if chain.len() > MAX_CHAIN {
            return Err(of(&self.cert, &format!("holds more than {MAX_CHAIN} certificates")));
        }
        for (index, certificate) in chain.iter().enumerate() {
            certificate
                .check_validity(now)
                .map_err(|why| of(&self.cert, &format!("certificate {} {why}", index + 1)))?;
        }
        let validity = Validity {
            not_before: chain.first().map_or(now, |certificate| certificate.not_before),
            not_after: chain.iter().map(|certificate| certificate.not_after).min().unwrap_or(now),
        };
        let key = private_key(&files.key).map_err(|why| of(&self.key, &why))?;
        let provider = provider();
        let chain: Vec<_> = chain.into_iter().map(|certificate| certificate.der).collect();
        self.check_issuer(&chain, files, now)?;
        let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
            Error::InconsistentKeys(_) => {
                of(&self.key, &format!("is not the key of the first certificate in {}", self.cert.display()))
            }
            error => of(&self.key, &error),
        })?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| error.to_string())?;
        let builder = match self.client_ca.as_ref().zip(files.client_ca.as_ref()) {
            None => builder.with_no_client_auth(),
            Some((path, pem)) => {
                let roots = roots(pem, now).map_err(|why| of(path, &why))?;
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = match self.client_auth {
                    ClientAuth::Required => verifier,
                    ClientAuth::Optional => verifier.allow_unauthenticated(),
                };
                let verifier = verifier.build().map_err(|error| of(path, &error))?;
                builder.with_client_cert_verifier(Arc::new(KnownClients::new(verifier)))
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols =
            [super::handshake::ALPN_HTTP2, super::handshake::ALPN_HTTP1].map(<[u8]>::to_vec).into();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Checked { config: Arc::new(config), validity })
    }

    /// Whether the given issuer, where there is one, vouches for the chain.
    fn check_issuer(
        &self,
        chain: &[CertificateDer<'_>],
        files: &ReadFiles,
        now: SystemTime,
    ) -> Result<(), String> {
        let Some((path, pem)) = self.issuer_ca.as_ref().zip(files.issuer_ca.as_ref()) else { return Ok(()) };
        let roots = roots(pem, now).map_err(|why| of(path, &why))?;
        verify(chain, &roots, now).map_err(|why| {
            of(&self.cert, &format!("does not verify by the authorities in {}: {why}", path.display()))
        })
    }
}

/// Checks a chain as a client would that trusts these authorities, without a name.
fn verify(chain: &[CertificateDer<'_>], roots: &RootCertStore, now: SystemTime) -> Result<(), String> {
    let (first, others) = chain.split_first().ok_or("it is empty")?;
    let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    let algorithms = provider().signature_verification_algorithms.all;
    ParsedCertificate::try_from(first)
        .and_then(|first| verify_server_cert_signed_by_trust_anchor(&first, roots, others, now, algorithms))
        .map_err(|error| match error {
            Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
                "none of them has issued it; does the chain lack a certificate between?".into()
            }
            Error::InvalidCertificate(why) => why.to_string(),
            error => error.to_string(),
        })
}

fn of(path: &Path, why: &dyn std::fmt::Display) -> String {
    format!("{}: {why}", path.display())
}
