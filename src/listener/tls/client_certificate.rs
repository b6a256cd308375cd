//! Client certificates: which are accepted, and whom they name.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use crate::{
    rpc::peer::{BadIdentity, PeerIdentity},
    tls::Certificate,
};

/// Whom a certificate names; `None` where it has neither a URI nor a DNS name. Its client
/// then has no identity, like a client without a certificate.
///
/// # Errors
/// Its names cannot be read, or are not clear.
pub fn identity(certificate: &CertificateDer<'_>) -> Result<Option<PeerIdentity>, BadIdentity> {
    let certificate =
        Certificate::parse(certificate.clone().into_owned()).map_err(|_| BadIdentity::Malformed)?;
    let uris = certificate.uris.iter().map(String::as_str);
    match PeerIdentity::new(uris, certificate.dns_names.iter().map(String::as_str)) {
        Err(BadIdentity::Nameless) => Ok(None),
        identity => identity.map(Some),
    }
}

/// Accepts certificates that an authority vouches for and whose names are clear. The
/// handshake fails for any other, so that its client learns why.
#[derive(Debug)]
pub struct KnownClients(Arc<dyn ClientCertVerifier>);

impl KnownClients {
    pub fn new(inner: Arc<dyn ClientCertVerifier>) -> Self {
        Self(inner)
    }
}

impl ClientCertVerifier for KnownClients {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.verify_client_cert(certificate, intermediates, now)?;
        match identity(certificate) {
            Ok(_) => Ok(verified),
            Err(bad) => Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(bad))))),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
