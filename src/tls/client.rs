//! TLS of the process as a client: of a collector, of PostgreSQL, and of another user-service.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer},
};

use super::{certificates, private_key, provider, read, roots};

/// The files of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// The authorities of servers. `None`: the public ones that this binary knows, but for
    /// PostgreSQL, where `sslmode` says what is checked.
    pub ca: Option<PathBuf>,
    /// The client's own certificate and its chain.
    pub cert: Option<PathBuf>,
    /// The key of that certificate.
    pub key: Option<PathBuf>,
}

impl ClientFiles {
    /// Whether any file is named.
    pub fn any(&self) -> bool {
        self.ca.is_some() || self.cert.is_some() || self.key.is_some()
    }

    /// Reads the files.
    ///
    /// # Errors
    /// Names the file and why it will not do, or the file that is missing.
    pub fn config(&self) -> Result<ClientConfig, String> {
        let public = || RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let roots = self.authorities()?.unwrap_or_else(public);
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots);
        let Some((chain, key)) = self.identity()? else { return Ok(builder.with_no_client_auth()) };
        builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| format!("the certificate of the client cannot be used with its key: {error}"))
    }

    /// The authorities of servers, where a file names them.
    ///
    /// # Errors
    /// Names the file and why it will not do.
    pub fn authorities(&self) -> Result<Option<RootCertStore>, String> {
        self.ca.as_deref().map(|path| file(path, |pem| roots(pem, SystemTime::now()))).transpose()
    }

    /// The certificate with its chain, and the key.
    ///
    /// # Errors
    /// Names the file and why it will not do, or that one of the two is missing.
    #[allow(clippy::type_complexity, reason = "a pair that rustls takes as it is")]
    pub fn identity(&self) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, String> {
        match (&self.cert, &self.key) {
            (None, None) => Ok(None),
            (Some(cert), Some(key)) => {
                let chain = file(cert, certificates)?.into_iter().map(|one| one.der).collect();
                Ok(Some((chain, file(key, private_key)?)))
            }
            (Some(_), None) => Err("a certificate of the client needs its key, too".into()),
            (None, Some(_)) => Err("a key of the client needs its certificate, too".into()),
        }
    }
}

fn file<T>(path: &Path, parse: impl FnOnce(&[u8]) -> Result<T, String>) -> Result<T, String> {
    let bad = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    parse(&read(path).map_err(|error| bad(&error))?).map_err(|error| bad(&error))
}
