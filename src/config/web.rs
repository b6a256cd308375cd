//! What browsers may do, as settings.

use http::Uri;

use super::value::{SettingKind, Value};

/// The protocols that the port serves next to gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WebProtocols {
    pub grpc_web: bool,
    pub connect: bool,
}

impl WebProtocols {
    pub const ALL: Self = Self { grpc_web: true, connect: true };
    const NONE: Self = Self { grpc_web: false, connect: false };
}

impl Value for WebProtocols {
    const KIND: SettingKind = SettingKind::Text;
    const EXPECTED: &'static str = "grpc_web, connect, both with a comma between them, or none";
    const PLACEHOLDER: &'static str = "grpc_web,connect";

    fn read(text: &str) -> Option<Self> {
        let mut protocols = Self::NONE;
        for name in text.split(',').map(str::trim).filter(|_| text != "none") {
            match name {
                "grpc_web" => protocols.grpc_web = true,
                "connect" => protocols.connect = true,
                _ => return None,
            }
        }
        Some(protocols)
    }

    fn show(&self) -> String {
        let names = [("grpc_web", self.grpc_web), ("connect", self.connect), ("none", *self == Self::NONE)];
        names.iter().filter(|(_, served)| *served).map(|(name, _)| *name).collect::<Vec<_>>().join(",")
    }
}

/// The origins of web pages that may call from a browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// Every page.
    Any,
    /// As browsers spell them; empty where no page may.
    Listed(Vec<String>),
}

impl AllowedOrigins {
    pub const NONE: Self = Self::Listed(Vec::new());
}

impl Value for AllowedOrigins {
    const KIND: SettingKind = SettingKind::Text;
    const EXPECTED: &'static str =
        "origins with a comma between them, such as https://app.example.com, or * alone, or nothing";
    const PLACEHOLDER: &'static str = "ORIGINS";

    fn read(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        let listed = text.split(',').map(str::trim).filter(|_| !text.is_empty());
        listed
            .map(|origin| is_origin(origin).then(|| origin.to_owned()))
            .collect::<Option<_>>()
            .map(Self::Listed)
    }

    fn advice(text: &str) -> Option<String> {
        let bad = text.split(',').map(str::trim).find(|origin| !is_origin(origin))?;
        if bad == "*" {
            return Some("* stands alone: it allows every origin".into());
        }
        if bad == "null" {
            return Some("null is the origin of every sandboxed page: it cannot be allowed".into());
        }
        if bad.contains('*') {
            return Some("an origin is spelt out: it has no * for a part of it".into());
        }
        let lower = bad.to_ascii_lowercase();
        let bare = lower.strip_suffix(if lower.starts_with("https:") { ":443" } else { ":80" });
        let meant = bare.unwrap_or(&lower).trim_end_matches('/');
        (meant != bad && is_origin(meant)).then(|| format!("browsers spell this origin {meant}"))
    }

    fn show(&self) -> String {
        match self {
            Self::Any => "*".into(),
            Self::Listed(origins) => origins.join(","),
        }
    }
}

/// Whether it is an origin as a browser spells it: scheme, host and a port that is not the
/// scheme's own, in lower case.
fn is_origin(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return false };
    let is_default_port = matches!((scheme, authority.port_u16()), ("https", Some(443)) | ("http", Some(80)));
    let spelt = format!("{scheme}://{authority}");
    spelt == text
        && !authority.host().is_empty()
        && !authority.as_str().contains(['@', '*'])
        && !is_default_port
        && !text.contains(|c: char| c.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_spelt_as_browsers_do() {
        for good in [
            "https://app.example.com",
            "http://localhost:3000",
            "http://[::1]:8080",
            "capacitor://localhost",
            "https://a.example, https://b.example:8443",
        ] {
            let read = AllowedOrigins::read(good).unwrap_or_else(|| panic!("{good}"));
            assert_eq!(AllowedOrigins::read(&read.show()), Some(read));
            assert_eq!(AllowedOrigins::advice(good), None);
        }
        for (bad, advice) in [
            ("https://App.example.com", Some("browsers spell this origin https://app.example.com")),
            ("https://app.example.com/", Some("browsers spell this origin https://app.example.com")),
            ("https://app.example.com:443", Some("browsers spell this origin https://app.example.com")),
            ("https://a.example,*", Some("* stands alone: it allows every origin")),
            ("https://*.example.com", Some("an origin is spelt out: it has no * for a part of it")),
            ("null", Some("null is the origin of every sandboxed page: it cannot be allowed")),
            ("app.example.com", None),
            ("https://app.example.com/page", None),
            ("https://user@app.example.com", None),
            ("https://a.example,", None),
        ] {
            assert_eq!(AllowedOrigins::read(bad), None, "{bad}");
            assert_eq!(AllowedOrigins::advice(bad).as_deref(), advice, "{bad}");
        }
        assert_eq!(AllowedOrigins::read("*"), Some(AllowedOrigins::Any));
        assert_eq!(AllowedOrigins::read(""), Some(AllowedOrigins::NONE));
    }

    #[test]
    fn each_protocol_next_to_grpc_can_be_left_out() {
        for text in ["none", "grpc_web", "connect", "grpc_web,connect"] {
            assert_eq!(WebProtocols::read(text).unwrap().show(), text);
        }
        assert_eq!(WebProtocols::read("connect, grpc_web"), Some(WebProtocols::ALL));
        for bad in ["", "grpc", "grpc-web", "connect,", "none,connect", "all"] {
            assert_eq!(WebProtocols::read(bad), None, "{bad}");
        }
    }
}
