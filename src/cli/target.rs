//! Where a server is, and what a command needs to be let in there.

use std::{fmt, net::IpAddr, path::PathBuf, sync::Arc};

use clap::{Arg, ArgAction, ArgMatches, value_parser};
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
};

use crate::tls::{self, ClientFiles};

/// A server, and how it is called.
#[derive(Clone, Debug)]
pub struct Target {
    /// `HOST:PORT`
    pub addr: String,
    tls: Option<Tls>,
    token_file: Option<PathBuf>,
}

#[derive(Clone, Debug)]
struct Tls {
    files: ClientFiles,
    /// The name that the server's certificate must have.
    server_name: ServerName<'static>,
}

/// The flags of a command that calls a server.
pub fn args() -> [Arg; 7] {
    let file = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("FILE").value_parser(value_parser!(PathBuf)).help(help)
    };
    let switch = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    let args = [
        switch("tls", "Use TLS; every other flag of TLS says so, too"),
        file("tls-ca", "Check the server with these authorities (PEM); else with the public ones"),
        file("tls-cert", "Show the server this certificate (PEM, with its chain)"),
        file("tls-key", "The key of that certificate (PEM)"),
        Arg::new("tls-server-name")
            .long("tls-server-name")
            .value_name("NAME")
            .help("The name in the server's certificate, where it is not the host"),
        file("token-file", "Send the token in this file with each call, as a bearer token"),
        switch("plaintext-token", "Send it without TLS, too, where a mesh encrypts"),
    ];
    args.map(|arg| arg.help_heading("Connection"))
}

impl Target {
    /// Reads the flags, and the files once, so that a mistake is told immediately.
    ///
    /// # Errors
    /// The mistake and its remedy.
    pub fn new(addr: String, matches: &ArgMatches) -> Result<Self, String> {
        let path = |name| matches.get_one::<PathBuf>(name).cloned();
        let files = ClientFiles { ca: path("tls-ca"), cert: path("tls-cert"), key: path("tls-key") };
        let given_name = matches.get_one::<String>("tls-server-name");
        let host = host(&addr).to_owned();
        let tls = if matches.get_flag("tls") || files.any() || given_name.is_some() {
            files.config()?;
            let name = given_name.unwrap_or(&host);
            let server_name = ServerName::try_from(name.clone())
                .map_err(|_| format!("--tls-server-name must be a name or an address, not {name:?}"))?;
            Some(Tls { files, server_name })
        } else {
            None
        };
        let target = Self { addr, tls, token_file: path("token-file") };
        if target.token_file.is_some() {
            target.bearer()?;
            if target.tls.is_none() && !is_loopback(&host) && !matches.get_flag("plaintext-token") {
                return Err("a token needs TLS (--tls or --tls-ca), because it would pass in plain text; \
                            where a mesh encrypts, add --plaintext-token"
                    .into());
            }
        }
        Ok(target)
    }

    /// The scheme of requests.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// What makes TLS, and the server's name; `None` without TLS. The files are read each time,
    /// because they may have been renewed.
    ///
    /// # Errors
    /// Names the file and why it will not do.
    pub fn tls(&self) -> Result<Option<(TlsConnector, ServerName<'static>)>, String> {
        let Some(Tls { files, server_name }) = &self.tls else { return Ok(None) };
        let mut config = files.config()?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Some((TlsConnector::from(Arc::new(config)), server_name.clone())))
    }

    /// What adds the token to each call. The file is read each time.
    ///
    /// # Errors
    /// Names the file and why it will not do, without the token.
    pub fn bearer(&self) -> Result<Bearer, String> {
        let Some(path) = &self.token_file else { return Ok(Bearer(None)) };
        let bad = |why: &dyn fmt::Display| format!("{}: {why}", path.display());
        let bytes = tls::read(path).map_err(|error| bad(&error))?;
        let token = String::from_utf8(bytes).ok();
        let token = token.as_deref().map(str::trim);
        let is_token = |token: &&str| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        let header = token
            .filter(is_token)
            .and_then(|token| format!("Bearer {token}").parse::<MetadataValue<Ascii>>().ok());
        let mut header = header.ok_or_else(|| bad(&"holds no token: one word of printable ASCII"))?;
        header.set_sensitive(true);
        Ok(Bearer(Some(header)))
    }
}

/// Adds the token to each call.
#[derive(Clone, Debug)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// The host of `HOST:PORT`, an IPv6 address without its brackets.
fn host(addr: &str) -> &str {
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(addr: &str, flags: &[&str]) -> Result<Target, String> {
        let command = clap::Command::new("test").no_binary_name(true).args(args());
        Target::new(addr.into(), &command.try_get_matches_from(flags).unwrap())
    }

    #[test]
    fn any_flag_of_tls_switches_it_on() {
        assert_eq!(target("users.test:1", &[]).unwrap().scheme(), "http");
        for flags in [&["--tls"][..], &["--tls-server-name", "other.test"]] {
            assert_eq!(target("users.test:1", flags).unwrap().scheme(), "https", "{flags:?}");
        }
        for (flags, why) in [
            (&["--tls-ca", "/nowhere"][..], "/nowhere"),
            (&["--tls-cert", "/nowhere"], "needs its key"),
            (&["--tls-key", "/nowhere"], "needs its certificate"),
            (&["--tls-server-name", "a b"], "--tls-server-name"),
        ] {
            let error = target("users.test:1", flags).unwrap_err();
            assert!(error.contains(why), "{flags:?}: {error}");
        }
    }

    #[test]
    fn a_certificate_is_checked_for_the_host_unless_another_name_is_given() {
        let name = |addr: &str, flags: &[&str]| target(addr, flags).unwrap().tls.unwrap().server_name;
        assert_eq!(name("users.test:1", &["--tls"]).to_str(), "users.test");
        assert_eq!(name("[::1]:1", &["--tls"]).to_str(), "::1");
        assert_eq!(name("127.0.0.1:1", &["--tls-server-name", "users.test"]).to_str(), "users.test");
    }

    #[test]
    fn a_token_is_sent_over_tls_or_to_this_machine_alone_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "\u{feff}S3cret\r\n").unwrap();
        let file = file.to_str().unwrap();
        for (addr, flags, sent) in [
            ("localhost:1", &[][..], true),
            ("[::1]:1", &[], true),
            ("127.0.0.1:1", &[], true),
            ("users.test:1", &["--tls"], true),
            ("users.test:1", &["--plaintext-token"], true),
            ("users.test:1", &[], false),
            ("10.0.0.1:1", &[], false),
        ] {
            let target = target(addr, &[&["--token-file", file], flags].concat());
            assert_eq!(target.is_ok(), sent, "{addr} {flags:?}");
            let Ok(target) = target else { continue };
            let mut bearer = target.bearer().unwrap();
            let request = bearer.call(Request::new(())).unwrap();
            assert_eq!(request.metadata().get("authorization").unwrap(), "Bearer S3cret");
            assert!(!format!("{target:?} {bearer:?} {request:?}").contains("S3cret"));
        }
        for bad in ["", " \n", "two words", "S3cr\u{e9}t"] {
            std::fs::write(file, bad).unwrap();
            let error = target("localhost:1", &["--token-file", file]).unwrap_err();
            assert!(error.contains("holds no token") && !error.contains("S3cr"), "{error}");
        }
    }
}
