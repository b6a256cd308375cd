//! PEM files of certificates and keys, bounded and checked.

use std::{
    fs::File,
    io,
    path::Path,
    time::{Duration, SystemTime},
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use x509_cert::{
    der::Decode,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

use crate::util::bounded_file;

/// Reads a file of at most 1 MiB.
///
/// # Errors
/// The file cannot be read, is no regular file, or is too large.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("is not a file"));
    }
    bounded_file::bytes(file)
}

/// All certificates of a file, in their order.
///
/// # Errors
/// There is none, or one cannot be read.
pub fn certificates(pem: &[u8]) -> Result<Vec<Certificate>, String> {
    let mut certificates = Vec::new();
    for der in CertificateDer::pem_slice_iter(pem) {
        let number = certificates.len() + 1;
        let der = der.map_err(|error| format!("certificate {number} is not PEM: {error}"))?;
        let certificate = Certificate::parse(der)
            .map_err(|error| format!("certificate {number} is not an X.509 certificate: {error}"))?;
        certificates.push(certificate);
    }
    if certificates.is_empty() {
        return Err("holds no certificate in PEM".into());
    }
    Ok(certificates)
}

/// The one private key of a file: PKCS #8, PKCS #1 or SEC 1, not encrypted.
///
/// # Errors
/// There is none.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    // The cause may repeat a part of the key.
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| {
        let encrypted = pem.windows(9).any(|part| part == b"ENCRYPTED");
        let why = if encrypted { ", because it is encrypted: write it without a passphrase" } else { "" };
        format!("holds no private key in PEM that can be read{why}")
    })
}

/// The authorities of a file. An expired one is left out: nothing else would check it.
///
/// # Errors
/// One cannot be read, or none is valid now.
pub fn roots(pem: &[u8], now: SystemTime) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in certificates(pem)?.into_iter().enumerate() {
        if certificate.not_after < now {
            continue;
        }
        roots
            .add(certificate.der)
            .map_err(|error| format!("certificate {} is no authority: {error}", index + 1))?;
    }
    if roots.is_empty() {
        return Err("holds only expired certificates".into());
    }
    Ok(roots)
}

/// A certificate, and what is read from it here.
#[derive(Clone, Debug)]
pub struct Certificate {
    pub der: CertificateDer<'static>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    /// The URIs of its subject alternative name.
    pub uris: Vec<String>,
    /// The DNS names of its subject alternative name.
    pub dns_names: Vec<String>,
}

impl Certificate {
    /// Reads validity and names. The signature is not checked.
    ///
    /// # Errors
    /// It is no certificate, or its names are malformed.
    pub fn parse(der: CertificateDer<'static>) -> Result<Self, x509_cert::der::Error> {
        let certificate = x509_cert::Certificate::from_der(&der)?.tbs_certificate;
        let (mut uris, mut dns_names) = (Vec::new(), Vec::new());
        if let Some((_, names)) = certificate.get::<SubjectAltName>()? {
            for name in names.0 {
                match name {
                    GeneralName::UniformResourceIdentifier(uri) => uris.push(uri.to_string()),
                    GeneralName::DnsName(name) => dns_names.push(name.to_string()),
                    _ => {}
                }
            }
        }
        let time = |time: x509_cert::time::Time| SystemTime::UNIX_EPOCH + time.to_unix_duration();
        let validity = certificate.validity;
        Ok(Self {
            not_before: time(validity.not_before),
            not_after: time(validity.not_after),
            uris,
            dns_names,
            der,
        })
    }

    /// Whether it is valid at this time.
    ///
    /// # Errors
    /// By how much it is not.
    pub fn check_validity(&self, now: SystemTime) -> Result<(), String> {
        let hours = |span: Duration| span.as_secs() / 3_600;
        if let Ok(ago) = now.duration_since(self.not_after)
            && !ago.is_zero()
        {
            return Err(format!("expired {} hours ago", hours(ago)));
        }
        match self.not_before.duration_since(now) {
            Ok(left) if !left.is_zero() => {
                Err(format!("is not valid yet, for {} seconds; is the clock right?", left.as_secs() + 1))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_hold_nothing_of_use_are_refused_without_their_bytes() {
        for pem in ["", "S3cret", "-----BEGIN PRIVATE KEY-----\nS3cret\n"] {
            let why = private_key(pem.as_bytes()).unwrap_err();
            assert!(why.contains("no private key") && !why.contains("S3cret"), "{why}");
            let why = certificates(pem.as_bytes()).unwrap_err();
            assert!(why.contains("certificate") && !why.contains("S3cret"), "{why}");
        }
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        assert!(private_key(encrypted.as_bytes()).unwrap_err().contains("passphrase"));
    }

    #[test]
    fn a_file_is_read_within_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let limit = 1_024 * 1_024;
        std::fs::write(&path, vec![b'a'; limit]).unwrap();
        assert_eq!(read(&path).unwrap().len(), limit);
        std::fs::write(&path, vec![b'a'; limit + 1]).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("larger"));
        assert!(read(folder.path()).unwrap_err().to_string().contains("not a file"));
        assert!(read(Path::new("/dev/zero")).unwrap_err().to_string().contains("not a file"));
    }

    #[test]
    fn names_and_validity_are_read_behind_a_byte_order_mark() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["users.test".to_owned()]).unwrap();
        params.subject_alt_names.push(rcgen::SanType::URI("spiffe://test/a".try_into().unwrap()));
        params.not_before = rcgen::date_time_ymd(2_020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2_021, 1, 1);
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        std::fs::write(&path, format!("\u{feff}{}", params.self_signed(&key).unwrap().pem())).unwrap();
        let pem = read(&path).unwrap();
        let read = certificates(&pem).unwrap().remove(0);
        assert_eq!((read.uris, read.dns_names), (vec!["spiffe://test/a".into()], vec!["users.test".into()]));
        let day = Duration::from_hours(24);
        let year_2020 = SystemTime::UNIX_EPOCH + 18_262 * day;
        let valid = |now| certificates(&pem).unwrap()[0].check_validity(now);
        assert_eq!(valid(year_2020), Ok(()));
        assert!(valid(year_2020 - day).unwrap_err().contains("not valid yet"));
        assert_eq!(valid(year_2020 + 367 * day), Err("expired 24 hours ago".into()));
        assert!(roots(&pem, year_2020).is_ok());
        let expired = roots(&pem, year_2020 + 367 * day).unwrap_err();
        assert!(expired.contains("only expired"), "{expired}");
    }
}
