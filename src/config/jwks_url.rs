//! The URL of the issuer's keys.

use std::net::IpAddr;

use http::Uri;

use super::value::{SettingKind, Value};

/// A URL over https, or over http on this machine; or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionalJwksUrl(Option<JwksUrl>);

/// A URL that keys may be fetched from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwksUrl {
    text: String,
    is_loopback: bool,
}

impl OptionalJwksUrl {
    /// No URL.
    pub const NONE: Self = Self(None);

    pub fn url(&self) -> Option<&JwksUrl> {
        self.0.as_ref()
    }
}

impl JwksUrl {
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is answered by this machine, so that nobody can change the answer on its way.
    pub fn is_loopback(&self) -> bool {
        self.is_loopback
    }

    fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let authority = uri.authority()?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let is_address = host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let is_loopback = is_address || host == "localhost";
        let is_protected = match uri.scheme_str()? {
            "https" => true,
            "http" => is_loopback,
            _ => false,
        };
        let is_plain = !authority.as_str().contains('@') && !text.contains('#') && !host.is_empty();
        (is_protected && is_plain).then(|| Self { text: text.to_owned(), is_loopback })
    }
}

impl Value for OptionalJwksUrl {
    const KIND: SettingKind = SettingKind::Text;
    const EXPECTED: &'static str = "an https URL without a user, or an http URL of this machine, or nothing";
    const PLACEHOLDER: &'static str = "URL";

    fn read(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::NONE);
        }
        Some(Self(Some(JwksUrl::parse(text)?)))
    }

    fn show(&self) -> String {
        self.0.as_ref().map_or_else(String::new, |url| url.text.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_over_https_or_from_this_machine() {
        for text in [
            "https://issuer.example.test/jwks",
            "https://issuer.example.test:8443/a/b?c=d",
            "https://10.0.0.1/jwks",
            "http://localhost:8080/jwks",
            "http://127.0.0.1/jwks",
            "http://[::1]:8080/jwks",
        ] {
            let read = OptionalJwksUrl::read(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(read.show(), text);
        }
        for text in [
            "http://issuer.example.test/jwks",
            "http://10.0.0.1/jwks",
            "http://localhost.example.test/jwks",
            "http://localhost@issuer.example.test/jwks",
            "https://user:secret@issuer.example.test/jwks",
            "https://issuer.example.test/jwks#key",
            "ftp://issuer.example.test/jwks",
            "file:///etc/passwd",
            "issuer.example.test/jwks",
            "/jwks",
            "https://",
        ] {
            assert_eq!(OptionalJwksUrl::read(text), None, "{text}");
        }
        assert_eq!(OptionalJwksUrl::read("").unwrap().url(), None);
    }
}
