//! A client's identity, as its verified certificate states it.

use std::sync::Arc;

/// The names of a client certificate that the listener has verified. Clones share them.
///
/// A call finds it by [`ConnectionHandle::peer`](super::goaway::ConnectionHandle::peer),
/// because all calls of a connection have the same one. It is `None` on a connection
/// without TLS or without a client certificate that has a name.
///
/// **Invariant:** no part of it is in the log, because a certificate may name a person. The
/// audit log names it as the caller.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PeerIdentity(Arc<Names>);

#[derive(PartialEq, Eq, Hash)]
struct Names {
    uri: Option<Box<str>>,
    dns_names: Box<[Box<str>]>,
}

/// Why the names of a certificate are no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadIdentity {
    #[error("the certificate has neither a URI nor a DNS name")]
    Nameless,
    #[error("the certificate has more than one URI")]
    Ambiguous,
    #[error("the certificate has too many names, or one that is too long")]
    TooLarge,
    #[error("the names of the certificate cannot be read")]
    Malformed,
    #[error("a name of the certificate is empty or not of printable ASCII")]
    Unprintable,
}

impl PeerIdentity {
    /// The length of a URI in bytes that SPIFFE has implementations take (SPIFFE-ID, 2.3).
    pub const MAX_URI_BYTES: usize = 2_048;
    /// The length of a DNS name in bytes (RFC 1035, 2.3.4).
    pub const MAX_DNS_NAME_BYTES: usize = 253;
    /// DNS names of one certificate.
    pub const MAX_DNS_NAMES: usize = 32;

    /// From the URIs and the DNS names of a certificate's subject alternative name.
    ///
    /// # Errors
    /// Where the names identify nobody, or exceed a bound. More than one URI is refused,
    /// as X509-SVID (section 5.2) demands.
    pub fn new<'a>(
        uris: impl IntoIterator<Item = &'a str>,
        dns_names: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, BadIdentity> {
        let mut uris = uris.into_iter();
        let uri = uris.next().map(|uri| bounded(uri, Self::MAX_URI_BYTES)).transpose()?;
        if uris.next().is_some() {
            return Err(BadIdentity::Ambiguous);
        }
        let mut names = Vec::new();
        for name in dns_names {
            if names.len() == Self::MAX_DNS_NAMES {
                return Err(BadIdentity::TooLarge);
            }
            // DNS names are equal whatever their case (RFC 4343).
            names.push(bounded(&name.to_ascii_lowercase(), Self::MAX_DNS_NAME_BYTES)?);
        }
        if uri.is_none() && names.is_empty() {
            return Err(BadIdentity::Nameless);
        }
        Ok(Self(Arc::new(Names { uri, dns_names: names.into() })))
    }

    /// The one URI, such as a SPIFFE ID, as the certificate spells it.
    pub fn uri(&self) -> Option<&str> {
        self.0.uri.as_deref()
    }

    /// The DNS names in the certificate's order, in lower case.
    pub fn dns_names(&self) -> impl Iterator<Item = &str> {
        self.0.dns_names.iter().map(AsRef::as_ref)
    }

    /// The one name that stands for the client: the URI, else the first DNS name.
    pub fn name(&self) -> &str {
        self.uri().or_else(|| self.dns_names().next()).unwrap_or_default()
    }
}

/// Shows no name, because debug output ends up in logs.
impl std::fmt::Debug for PeerIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerIdentity").finish_non_exhaustive()
    }
}

fn bounded(name: &str, max_bytes: usize) -> Result<Box<str>, BadIdentity> {
    if name.len() > max_bytes {
        return Err(BadIdentity::TooLarge);
    }
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(BadIdentity::Unprintable);
    }
    Ok(name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPIFFE_ID: &str = "spiffe://example.test/ns/shop/sa/checkout";

    #[test]
    fn a_uri_stands_for_the_client_and_else_its_first_dns_name() {
        let both = PeerIdentity::new([SPIFFE_ID], ["Checkout.Shop", "checkout"]).unwrap();
        assert_eq!((both.name(), both.uri()), (SPIFFE_ID, Some(SPIFFE_ID)));
        assert_eq!(both.dns_names().collect::<Vec<_>>(), ["checkout.shop", "checkout"]);
        assert_eq!(PeerIdentity::new([], ["Checkout.Shop", "other"]).unwrap().name(), "checkout.shop");
    }

    #[test]
    fn names_that_identify_nobody_are_refused() {
        assert_eq!(PeerIdentity::new([], []), Err(BadIdentity::Nameless));
        assert_eq!(PeerIdentity::new([SPIFFE_ID, "spiffe://other.test/a"], []), Err(BadIdentity::Ambiguous));
        for name in ["", "a b", "a\nb", "a\0b", "ä.test"] {
            assert_eq!(PeerIdentity::new([], [name]), Err(BadIdentity::Unprintable), "{name:?}");
        }
    }

    #[test]
    fn names_are_bounded_in_number_and_length() {
        let long = "a".repeat(PeerIdentity::MAX_DNS_NAME_BYTES + 1);
        assert_eq!(PeerIdentity::new([], [long.as_str()]), Err(BadIdentity::TooLarge));
        assert!(PeerIdentity::new([], [&long[1..]]).is_ok());
        let long = "u".repeat(PeerIdentity::MAX_URI_BYTES + 1);
        assert_eq!(PeerIdentity::new([long.as_str()], []), Err(BadIdentity::TooLarge));
        assert!(PeerIdentity::new([&long[1..]], []).is_ok());
        let names = |count| PeerIdentity::new([], std::iter::repeat_n("a", count));
        assert!(names(PeerIdentity::MAX_DNS_NAMES).is_ok());
        assert_eq!(names(PeerIdentity::MAX_DNS_NAMES + 1), Err(BadIdentity::TooLarge));
    }

    #[test]
    fn debug_output_shows_no_name() {
        let shown = format!("{:?}", PeerIdentity::new([SPIFFE_ID], ["checkout"]).unwrap());
        assert!(!shown.contains("checkout") && !shown.contains("example"), "{shown}");
    }
}
