//! Authorities and certificates, made for one test.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::{
    ClientConfig, DEFAULT_VERSIONS, RootCertStore, SupportedProtocolVersion,
    pki_types::CertificateDer,
    sign::{CertifiedKey, SingleCertAndKey},
};
use user_service::tls;

/// The name of servers in their certificates.
pub const SERVER_NAME: &str = "users.test";
/// The name of clients in theirs.
pub const SPIFFE_ID: &str = "spiffe://test/ns/shop/sa/checkout";

/// An authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
    pub der: CertificateDer<'static>,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Pair {
    pub cert: String,
    pub key: String,
    pub der: CertificateDer<'static>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let (key, params) = (KeyPair::generate().unwrap(), Self::params(name));
        let cert = params.self_signed(&key).unwrap();
        Self { pem: cert.pem(), der: cert.der().clone(), issuer: Issuer::new(params, key) }
    }

    /// An authority that this one vouches for.
    pub fn intermediate(&self, name: &str) -> Self {
        let (key, params) = (KeyPair::generate().unwrap(), Self::params(name));
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Self { pem: cert.pem(), der: cert.der().clone(), issuer: Issuer::new(params, key) }
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params
    }

    /// A certificate of these parameters.
    pub fn issue(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Pair { cert: cert.pem(), key: key.serialize_pem(), der: cert.der().clone() }
    }

    /// A certificate of a server called [`SERVER_NAME`], `localhost` and `127.0.0.1`.
    pub fn server(&self) -> Pair {
        self.issue(&named(&[dns(SERVER_NAME), dns("localhost"), address()]))
    }

    /// A certificate of a client called [`SPIFFE_ID`].
    pub fn client(&self) -> Pair {
        self.issue(&named(&[uri(SPIFFE_ID)]))
    }
}

/// Parameters of a certificate for both purposes that is valid now.
pub fn named(names: &[SanType]) -> CertificateParams {
    let mut params = CertificateParams::new([]).unwrap();
    params.subject_alt_names = names.to_vec();
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// The same, expired.
pub fn expired(names: &[SanType]) -> CertificateParams {
    let mut params = named(names);
    (params.not_before, params.not_after) = (date_time_ymd(2_020, 1, 1), date_time_ymd(2_021, 1, 1));
    params
}

/// A certificate that vouches for itself.
pub fn self_signed(names: &[SanType]) -> Pair {
    let key = KeyPair::generate().unwrap();
    let cert = named(names).self_signed(&key).unwrap();
    Pair { cert: cert.pem(), key: key.serialize_pem(), der: cert.der().clone() }
}

pub fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

pub fn uri(uri: &str) -> SanType {
    SanType::URI(uri.try_into().unwrap())
}

fn address() -> SanType {
    SanType::IpAddress([127, 0, 0, 1].into())
}

/// How a client that trusts these authorities and shows this certificate connects.
pub fn client_config(trusted: &[&Authority], shown: Option<&Pair>) -> ClientConfig {
    client_config_of(DEFAULT_VERSIONS, trusted, shown)
}

/// The same with these versions of TLS. The key need not be that of the certificate.
pub fn client_config_of(
    versions: &[&'static SupportedProtocolVersion],
    trusted: &[&Authority],
    shown: Option<&Pair>,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for authority in trusted {
        roots.add(authority.der.clone()).unwrap();
    }
    let builder = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(Arc::new(roots));
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let key = tls::private_key(pair.key.as_bytes()).unwrap();
            let key = tls::provider().key_provider.load_private_key(key).unwrap();
            let certified = CertifiedKey::new(vec![pair.der.clone()], key);
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// Files of a server and of a client, in one folder.
pub struct Files {
    folder: tempfile::TempDir,
    pub authority: Authority,
}

impl Files {
    /// One authority (`ca.pem`) for both: `server.pem`, `server.key`, `client.pem`,
    /// `client.key`.
    pub fn new() -> Self {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new("authority"));
        let files = Self { folder, authority };
        files.write("ca.pem", &files.authority.pem);
        files.write_pair("server", &files.authority.server());
        files.write_pair("client", &files.authority.client());
        files
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    pub fn write_pair(&self, name: &str, pair: &Pair) {
        self.write(&format!("{name}.pem"), &pair.cert);
        self.write(&format!("{name}.key"), &pair.key);
    }

    /// The flags of a server with TLS.
    pub fn tls(&self) -> Vec<String> {
        ["--tls-cert-file", &self.path("server.pem"), "--tls-key-file", &self.path("server.key")]
            .map(str::to_owned)
            .to_vec()
    }

    /// The flags of a server that also wants clients' certificates.
    pub fn mutual_tls(&self) -> Vec<String> {
        let mut flags = self.tls();
        flags.extend(["--tls-client-ca-file".into(), self.path("ca.pem")]);
        flags
    }
}
