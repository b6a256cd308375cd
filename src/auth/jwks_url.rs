//! The keys of tokens by a URL: the `jwks_uri` of the issuer.
//!
//! One request at a time, bounded in time and in size, over https or to this machine. No
//! redirect is followed, so that the URL of the configuration is the only one that is asked.

use std::{
    io::{self, Read},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use reqwest::{StatusCode, blocking::Client, redirect::Policy};

use super::reload::Source;
use crate::{
    config::{Config, JwksUrl},
    tls::ClientFiles,
    util::{bounded_file, error_chain::ErrorChain},
};

/// How long the head of an answer may take, and each of its parts.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the whole answer may take after its head.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// How much sooner than usual the keys are fetched again for a token of an unknown key, and
/// after a failure: every 10 s where they are fetched every 5 minutes.
const SOONER: u32 = 30;

/// Whether a token has named a key that is not known.
pub type UnknownKey = Arc<AtomicBool>;

/// The issuer's answer, fetched again when it is due.
#[derive(Debug)]
pub struct IssuerKeys {
    url: JwksUrl,
    ca_file: Option<PathBuf>,
    refresh: Duration,
    unknown_key: UnknownKey,
    /// When the last request ended, and whether it brought keys.
    last: Option<(Instant, bool)>,
}

impl IssuerKeys {
    pub fn new(url: &JwksUrl, config: &Config, unknown_key: &UnknownKey) -> Self {
        Self {
            url: url.clone(),
            ca_file: config.auth_jwks_ca_file.path().map(Into::into),
            refresh: config.auth_jwks_refresh,
            unknown_key: Arc::clone(unknown_key),
            last: None,
        }
    }

    fn is_due(&self) -> bool {
        let Some((at, has_worked)) = self.last else { return true };
        let is_urgent = !has_worked || self.unknown_key.load(Relaxed);
        at.elapsed() >= if is_urgent { self.refresh / SOONER } else { self.refresh }
    }

    fn fetch(&self) -> Result<String, String> {
        let tls = ClientFiles { ca: self.ca_file.clone(), ..ClientFiles::default() }.config()?;
        let failed =
            |error: reqwest::Error| format!("cannot be fetched: {}", ErrorChain(&error.without_url()));
        // The authorities are read each time, because they may have been renewed.
        let client = Client::builder()
            .timeout(STEP_TIMEOUT)
            .redirect(Policy::none())
            .https_only(!self.url.is_loopback())
            .tls_backend_preconfigured(tls);
        // A proxy of the environment is for other machines.
        let client = if self.url.is_loopback() { client.no_proxy() } else { client };
        let client = client.build().map_err(failed)?;
        let answer =
            client.get(self.url.as_str()).header("accept", "application/json").send().map_err(failed)?;
        if answer.status() != StatusCode::OK {
            return Err(format!("is answered with {} in place of 200", answer.status().as_u16()));
        }
        let until = Instant::now() + BODY_TIMEOUT;
        bounded_file::text(Until { answer, until }).map_err(|error| format!("cannot be read: {error}"))
    }
}

impl Source for IssuerKeys {
    fn look(&mut self) -> Option<Result<String, String>> {
        if !self.is_due() {
            return None;
        }
        self.unknown_key.store(false, Relaxed);
        // The client must not be used on a thread of an async runtime.
        let fetched = thread::scope(|scope| scope.spawn(|| self.fetch()).join());
        let fetched = fetched.unwrap_or_else(|_| Err("cannot be fetched: the client panicked".into()));
        self.last = Some((Instant::now(), fetched.is_ok()));
        Some(fetched)
    }

    fn name(&self) -> String {
        self.url.as_str().to_owned()
    }
}

/// An answer that has to end in time, however slowly its bytes come.
struct Until<R> {
    answer: R,
    until: Instant,
}

impl<R: Read> Read for Until<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if Instant::now() >= self.until {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it takes too long"));
        }
        self.answer.read(buf)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, net::TcpListener};

    use super::*;
    use crate::config::Inputs;

    /// The URL of an issuer that answers every request with `{}`.
    fn issuer() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut head = [0; 1_024];
                let _ = stream.read(&mut head);
                let _ =
                    stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}");
            }
        });
        format!("http://{addr}/jwks")
    }

    #[test]
    fn an_unknown_key_makes_one_request_sooner_and_one_only() {
        let flags = [
            ("auth_policy_file", "policy.toml".to_owned()),
            ("auth_jwks_url", issuer()),
            ("auth_issuer", "https://issuer.test".to_owned()),
            ("auth_audience", "users".to_owned()),
        ];
        let loaded = Inputs { flags: flags.into(), ..Inputs::default() }.load().unwrap();
        let (config, unknown_key) = (loaded.config, UnknownKey::default());
        let mut keys = IssuerKeys::new(config.auth_jwks_url.url().unwrap(), &config, &unknown_key);
        assert_eq!(keys.look(), Some(Ok("{}".into())), "at the start");
        let sooner = config.auth_jwks_refresh / SOONER;
        let ago = |time: Duration| Some((Instant::now().checked_sub(time).unwrap(), true));
        keys.last = ago(sooner);
        assert_eq!(keys.look(), None, "no token has named another key");
        unknown_key.store(true, Relaxed);
        keys.last = ago(sooner / 2);
        assert_eq!(keys.look(), None, "it was asked not long ago");
        keys.last = ago(sooner);
        assert_eq!(keys.look(), Some(Ok("{}".into())));
        keys.last = ago(sooner);
        assert_eq!(keys.look(), None, "the token is forgotten");
        keys.last = ago(config.auth_jwks_refresh);
        assert_eq!(keys.look(), Some(Ok("{}".into())), "as often as without one");
    }
}
