//! The options of a `PostgreSQL` URL: those of libpq, and those that providers and other
//! drivers put there.

use std::time::Duration;

use tokio_postgres::config::{Config, SslMode, TargetSessionAttrs};

use super::{TlsMode, errors::nearest};

/// What an option comes to.
pub(super) enum Meaning {
    /// The driver knows it.
    Driver,
    /// One of these values, which change nothing here.
    Already(&'static [&'static str]),
    /// It is refused; what to do instead.
    Instead(&'static str),
    /// It is read here; what it may be, for the documentation.
    #[cfg_attr(not(test), expect(dead_code, reason = "the documentation is made by a test"))]
    Own(&'static str),
}

use Meaning::{Already, Driver, Instead, Own};

const TABLES: &str = "leave it out: the tables are in the schema user_service, and are named with it";
const NO_PASSPHRASE: &str = "leave it out: the key in store_key_file has no passphrase";
const NO_GSSAPI: &str = "leave it out: GSSAPI is not supported";
const NO_REVOCATION: &str = "leave it out: lists of revoked certificates are not read";
const PASSWORD: &str = "use store_password_file, or write the password behind the user";
const PREPARED: &str = "use store_prepared_statements";
const CONNECTIONS: &str = "use store_connections";
const TIMEOUT: &str = "use store_timeout_ms";
const SSLMODE: &str = "use sslmode";

/// Every option that is known, by name.
#[rustfmt::skip]
pub(super) const OPTIONS: &[(&str, Meaning)] = &[
    ("application_name", Driver),
    ("channel_binding", Driver),
    ("client_encoding", Already(&["UTF8", "utf8", "UTF-8", "utf-8", "auto"])),
    ("connect_timeout", Own("taken, up to `store_timeout_ms`")),
    ("connection_limit", Instead(CONNECTIONS)),
    ("currentSchema", Instead(TABLES)),
    ("dbname", Driver),
    ("default_query_exec_mode", Instead(PREPARED)),
    ("fallback_application_name", Instead("use application_name")),
    ("gssdelegation", Already(&["0"])),
    ("gssencmode", Already(&["disable", "prefer"])),
    ("gsslib", Instead(NO_GSSAPI)),
    ("host", Driver),
    ("hostaddr", Driver),
    ("keepalives", Driver),
    ("keepalives_count", Own("taken")),
    ("keepalives_idle", Driver),
    ("keepalives_interval", Driver),
    ("krbsrvname", Instead(NO_GSSAPI)),
    ("load_balance_hosts", Driver),
    ("max_protocol_version", Already(&["3.0"])),
    ("min_protocol_version", Already(&["3.0"])),
    ("options", Driver),
    ("passfile", Instead("use store_password_file, which holds the password and nothing else")),
    ("password", Instead(PASSWORD)),
    ("pgbouncer", Already(&["true", "false"])),
    ("pool_max_conns", Instead(CONNECTIONS)),
    ("pool_timeout", Instead(TIMEOUT)),
    ("port", Driver),
    ("prepareThreshold", Instead(PREPARED)),
    ("prepare_threshold", Instead(PREPARED)),
    ("replication", Already(&["false", "off", "no", "0"])),
    ("require_auth", Instead("leave it out: the server says how it wants the password")),
    ("requirepeer", Instead("leave it out: the owner of a socket is not checked")),
    ("requiressl", Instead(SSLMODE)),
    ("schema", Instead(TABLES)),
    ("scram_client_key", Instead(PASSWORD)),
    ("scram_server_key", Instead(PASSWORD)),
    ("search_path", Instead(TABLES)),
    ("service", Instead("write what the service file says of it: host, port, database and user")),
    ("ssl", Instead(SSLMODE)),
    ("ssl_max_protocol_version", Already(&["TLSv1.3"])),
    ("ssl_min_protocol_version", Already(&["TLSv1", "TLSv1.1", "TLSv1.2"])),
    ("sslaccept", Instead(SSLMODE)),
    ("sslcert", Instead("use store_cert_file")),
    ("sslcertmode", Already(&["disable", "allow"])),
    ("sslcompression", Already(&["0"])),
    ("sslcrl", Instead(NO_REVOCATION)),
    ("sslcrldir", Instead(NO_REVOCATION)),
    ("sslkey", Instead("use store_key_file")),
    ("sslkeylogfile", Instead("leave it out: keys are not written anywhere")),
    ("sslmode", Own("`disable`, `prefer` (the default), `require`, `verify-ca` or `verify-full`")),
    ("sslnegotiation", Already(&["postgres"])),
    ("sslpassword", Instead(NO_PASSPHRASE)),
    ("sslrootcert", Instead("use store_ca_file")),
    ("sslsni", Already(&["1"])),
    ("statement_cache_size", Instead(PREPARED)),
    ("statement_timeout", Instead(TIMEOUT)),
    ("target_session_attrs", Own("`read-write` or `primary`: the server that takes writes, as without it")),
    ("tcp_user_timeout", Own("taken, up to `store_timeout_ms`")),
    ("user", Driver),
];

/// What the options of a URL say.
pub(super) struct Options {
    pub tls: TlsMode,
    /// Those that the driver is to read, as it spells them.
    pub driver: Vec<String>,
}

/// Reads what comes behind the `?` of a URL.
///
/// # Errors
/// The error of an option and its remedy. Names a known option, and never repeats its
/// value.
pub(super) fn read(query: &str) -> Result<Options, String> {
    let mut options = Options { tls: TlsMode::Prefer, driver: Vec::new() };
    let mut seen = Vec::new();
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let Some((name, meaning)) = OPTIONS.iter().find(|(known, _)| *known == name) else {
            return Err(unknown(name, query));
        };
        if seen.contains(name) {
            return Err(format!("its option {name} is there twice"));
        }
        seen.push(name);
        match meaning {
            Driver => options.driver.push(for_driver(name, value)?),
            Already(values) if values.contains(&value) => {}
            Already(values) => return Err(format!("its option {name} can only be {}", values.join(" or "))),
            Instead(what) => return Err(format!("its option {name} is not taken: {what}")),
            Own(_) => options.own(name, value)?,
        }
    }
    Ok(options)
}

impl Options {
    fn own(&mut self, name: &str, value: &str) -> Result<(), String> {
        match (name, value) {
            ("sslmode", "disable") => self.tls = TlsMode::Disable,
            ("sslmode", "prefer") => self.tls = TlsMode::Prefer,
            ("sslmode", "require") => self.tls = TlsMode::Require,
            ("sslmode", "verify-ca") => self.tls = TlsMode::VerifyCa,
            ("sslmode", "verify-full") => self.tls = TlsMode::VerifyFull,
            ("sslmode", "allow") => {
                return Err("its sslmode is allow, which takes TLS last: use prefer, or disable".into());
            }
            ("sslmode", _) => {
                return Err(
                    "its sslmode can only be disable, prefer, require, verify-ca or verify-full".into()
                );
            }
            // Both are the server that takes writes, which is always looked for.
            ("target_session_attrs", "read-write" | "primary") => {}
            ("target_session_attrs", _) => {
                return Err("its target_session_attrs can only be read-write or primary, because the \
                            service writes: leave it out"
                    .into());
            }
            // The driver spells it in another way.
            ("keepalives_count", value) => {
                let option = for_driver("keepalives_retries", value);
                self.driver.push(option.map_err(|_| not_understood(name))?);
            }
            ("connect_timeout", value) => self.driver.push(for_driver(name, value)?),
            // libpq counts milliseconds, and the driver seconds.
            (name, value) => {
                let millis: u64 = value.parse().map_err(|_| not_understood(name))?;
                self.driver.push(for_driver(name, &millis.div_ceil(1_000).to_string())?);
            }
        }
        Ok(())
    }
}

/// An option that the driver understands.
fn for_driver(name: &str, value: &str) -> Result<String, String> {
    let option = format!("{name}={value}");
    let understood = format!("postgres://user@host/?{option}").parse::<Config>();
    if value.is_empty() || understood.is_err() {
        return Err(not_understood(name));
    }
    Ok(option)
}

fn not_understood(name: &str) -> String {
    format!("the value of its option {name} is not understood")
}

/// What may be part of a password is not repeated.
fn unknown(name: &str, query: &str) -> String {
    let is_name = !query.contains('@') && name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if !is_name {
        return "it has an option that is not known".into();
    }
    match nearest(name, OPTIONS.iter().map(|(known, _)| (*known).to_owned())) {
        Some(known) => format!("it has no option {name}; did you mean {known}?"),
        None => format!("it has no option {name}"),
    }
}

/// How a connection that is quiet is kept, where the URL does not say.
pub(super) fn keep_alive(server: &mut Config, given: &[String]) {
    let is_given = |name: &str| given.iter().any(|option| option.starts_with(&format!("{name}=")));
    if !is_given("keepalives_idle") {
        server.keepalives_idle(Duration::from_secs(10));
    }
    if !is_given("keepalives_interval") {
        server.keepalives_interval(Duration::from_secs(5));
    }
    if !is_given("keepalives_retries") {
        server.keepalives_retries(3);
    }
}

/// What the driver is told of TLS and of the server to look for.
pub(super) fn protect(server: &mut Config, tls: TlsMode) {
    server.ssl_mode(match tls {
        TlsMode::Disable => SslMode::Disable,
        TlsMode::Prefer => SslMode::Prefer,
        _ => SslMode::Require,
    });
    // A standby answers with what was, and a write needs the primary anyway.
    server.target_session_attrs(TargetSessionAttrs::ReadWrite);
}
