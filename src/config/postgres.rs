//! The address of a `PostgreSQL` store.

use std::fmt;

use tokio_postgres::config::{SslMode, TargetSessionAttrs};

/// What a connection to the database is protected by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    Disable,
    /// TLS where the server has it.
    Prefer,
    /// TLS, with any certificate.
    Require,
    /// A certificate of a known authority.
    VerifyCa,
    /// The same, and it names the host.
    VerifyFull,
}

/// `postgres://USER@HOST[,HOST...]/DATABASE[?OPTION=VALUE&...]`
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl {
    /// As given, without a password.
    shown: String,
    pub server: tokio_postgres::Config,
    pub tls: TlsMode,
}

impl PostgresUrl {
    pub fn parse(url: &str) -> Option<Self> {
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"))?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut tls = TlsMode::Prefer;
        let mut options = Vec::new();
        // The driver does not know all of libpq's modes.
        for option in query.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=')? {
                ("sslmode", mode) => tls = tls_mode(mode)?,
                // It would be shown: the file of the password is for that.
                ("password", _) => return None,
                _ => options.push(option),
            }
        }
        let mut server: tokio_postgres::Config =
            format!("postgres://{place}?{}", options.join("&")).parse().ok()?;
        if server.get_hosts().is_empty() || server.get_user().is_none() {
            return None;
        }
        server.ssl_mode(match tls {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            _ => SslMode::Require,
        });
        // A standby answers with what was, and a write needs the primary anyway.
        server.target_session_attrs(TargetSessionAttrs::ReadWrite);
        if server.get_application_name().is_none() {
            server.application_name("user-service");
        }
        Some(Self { shown: without_password(url), server, tls })
    }

    /// Whether the server's certificate is checked.
    pub fn verifies(&self) -> bool {
        matches!(self.tls, TlsMode::VerifyCa | TlsMode::VerifyFull)
    }
}

fn tls_mode(mode: &str) -> Option<TlsMode> {
    Some(match mode {
        "disable" => TlsMode::Disable,
        "prefer" => TlsMode::Prefer,
        "require" => TlsMode::Require,
        "verify-ca" => TlsMode::VerifyCa,
        "verify-full" => TlsMode::VerifyFull,
        _ => return None,
    })
}

fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return String::new() };
    match rest.rsplit_once('@') {
        Some((login, rest)) => {
            let user = login.split_once(':').map_or(login, |(user, _)| user);
            format!("{scheme}://{user}@{rest}")
        }
        None => url.into(),
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// Holds a password, perhaps.
impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}
