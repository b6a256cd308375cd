//! The address of a `PostgreSQL` store.

use std::fmt;

use tokio_postgres::{Config, config::Host};

use super::postgres_options as options;

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
    pub server: Config,
    pub tls: TlsMode,
}

/// The likely cause where a URL is cut in the wrong places.
const UNESCAPED: &str = "its user or its password seems to hold a character that ends it: write %40 for @, \
                         %2F for /, %3F for ? and %25 for %";

impl PostgresUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// The error and its remedy, without anything that may be a password.
    pub fn parse(url: &str) -> Result<Self, String> {
        let known = ["postgres", "postgresql"];
        let Some((scheme, rest)) = url.split_once("://").filter(|(scheme, _)| known.contains(scheme)) else {
            return Err("it must begin with postgres:// or postgresql://".into());
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let names_user = query.split('&').any(|option| option.starts_with("user="));
        let is_cut_short = login.is_empty() && !names_user && (path.contains('@') || query.contains('@'));
        if login.contains('@') || is_cut_short || !is_escaped(login) {
            return Err(UNESCAPED.into());
        }
        let options = options::read(query)?;
        let mut server = driver_config(&format!("{login}@{path}?{}", options.driver.join("&")))?;
        add_places(&mut server, &driver_config(hosts)?);
        if server.get_hosts().is_empty() {
            return Err("it names no host".into());
        }
        if !server.get_hosts().iter().all(is_host) {
            return Err("its host is not a name or an address".into());
        }
        let (hosts_given, ports) = (server.get_hosts().len(), server.get_ports().len());
        if ports > 1 && ports != hosts_given {
            return Err(format!(
                "it names {ports} ports and {hosts_given} hosts: name one port, or one for each"
            ));
        }
        if server.get_user().is_none_or(str::is_empty) {
            return Err("it names no user".into());
        }
        options::protect(&mut server, options.tls);
        options::keep_alive(&mut server, &options.driver);
        if server.get_application_name().is_none() {
            server.application_name("user-service");
        }
        let user = login.split_once(':').map_or(login, |(user, _)| user);
        let at = if login.is_empty() { "" } else { "@" };
        let mark = if query.is_empty() { "" } else { "?" };
        Ok(Self {
            shown: format!("{scheme}://{user}{at}{hosts}{path}{mark}{query}"),
            server,
            tls: options.tls,
        })
    }

    /// Whether the server's certificate is checked.
    pub fn verifies(&self) -> bool {
        matches!(self.tls, TlsMode::VerifyCa | TlsMode::VerifyFull)
    }
}

/// What the driver reads out of the rest of a URL, behind its scheme.
fn driver_config(rest: &str) -> Result<Config, String> {
    format!("postgres://{rest}").parse().map_err(|_| "its host, port or database is not understood".into())
}

/// Adds the hosts and the ports before the path of a URL, unless an option names others. The
/// driver by itself would take both, and then has more ports than hosts.
fn add_places(server: &mut Config, before_path: &Config) {
    if server.get_hosts().is_empty() {
        for host in before_path.get_hosts() {
            match host {
                Host::Tcp(name) => server.host(name),
                Host::Unix(path) => server.host_path(path),
            };
        }
    }
    if server.get_ports().is_empty() {
        for port in before_path.get_ports() {
            server.port(*port);
        }
    }
}

/// Whether every `%` begins an escape of two hexadecimal digits.
fn is_escaped(text: &str) -> bool {
    text.split('%').skip(1).all(|part| {
        part.as_bytes().first_chunk::<2>().is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

fn is_host(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || ".-_:%".contains(c))
        }
        Host::Unix(_) => true,
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

#[cfg(test)]
mod tests;
