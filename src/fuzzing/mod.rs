//! The entry points of fuzzing. Each reads bytes as a peer, a caller or an operator may
//! send them, and checks what must hold of the result.
//!
//! `make fuzz` runs them under libFuzzer (`fuzz/`). The tests of this module run them on
//! the kept inputs (`fuzz/seeds/NAME/`) and on mutations of these. This module deliberately
//! is no part of the service: only tests and cargo-fuzz compile it.

mod calls;
mod connections;
mod edge;
#[cfg(test)]
mod tests;

use std::{cell::RefCell, ffi::OsString, fs, path::PathBuf, sync::LazyLock};

use http::HeaderValue;
use prost::Message as _;

use crate::{
    auth::{
        keys::KeySet,
        policy::Policy,
        token::{Expected, TokenCache},
    },
    cli::jsonl,
    config::{ConfigErrors, Inputs, Loaded, PostgresUrl},
    domain::{PageToken, ResumeToken},
    layers,
    proto::user::v1::{ImportUsersRequest, User},
};

/// One kind of input.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Also the folder of its kept inputs.
    pub name: &'static str,
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "calls", run: calls::run },
    Target { name: "connections", run: connections::run },
    Target { name: "edge", run: edge::run },
    Target { name: "page_tokens", run: |input| text(input, page_token) },
    Target { name: "resume_tokens", run: |input| text(input, resume_token) },
    Target { name: "grpc_timeouts", run: grpc_timeout },
    Target { name: "traceparents", run: traceparent },
    Target { name: "config_files", run: config_file },
    Target { name: "config_environments", run: |input| text(input, config_environment) },
    Target { name: "postgres_urls", run: |input| text(input, postgres_url) },
    Target { name: "import_lines", run: import_line },
    Target { name: "key_sets", run: |input| text(input, key_set) },
    Target { name: "policies", run: |input| text(input, policy) },
    Target { name: "tokens", run: |input| text(input, token) },
];

fn text(input: &[u8], run: fn(&str)) {
    if let Ok(text) = str::from_utf8(input) {
        run(text);
    }
}

/// A token that is taken is the one that its position is written as.
fn page_token(input: &str) {
    if let Ok(token) = PageToken::parse(input) {
        assert_eq!(token.encode(), input);
    }
}

fn resume_token(input: &str) {
    if let Ok(token) = ResumeToken::parse(input) {
        assert_eq!(token.encode(), input);
    }
}

/// A timeout has one to eight digits and a unit, and is what they say.
fn grpc_timeout(input: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(input) else { return };
    let parsed = layers::parse_timeout(&value);
    let said = str::from_utf8(input).ok().and_then(|text| {
        let number = text.get(..text.len().checked_sub(1)?)?;
        let is_number = (1..=8).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
        let nanos = match text.chars().last()? {
            'H' => 3_600_000_000_000,
            'M' => 60_000_000_000,
            'S' => 1_000_000_000,
            'm' => 1_000_000,
            'u' => 1_000,
            'n' => 1,
            _ => return None,
        };
        if is_number { Some(number.parse::<u128>().ok()? * nanos) } else { None }
    });
    assert_eq!(parsed.ok().map(|timeout| timeout.as_nanos()), said);
}

/// The parts of a `traceparent` are those that it was written with.
fn traceparent(input: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(input) else { return };
    let Some((trace, span, flags)) = layers::parse_traceparent(&value) else { return };
    let text = str::from_utf8(input).expect("only ASCII is read");
    assert_eq!(&text[2..53], format!("-{trace}-{span}-"));
    let sampled = u8::from_str_radix(&text[53..55], 16).expect("flags are hexadecimal") & 1 == 1;
    assert_eq!(flags.is_sampled(), sampled);
    assert!(!text.starts_with("ff") && (!text.starts_with("00") || text.len() == 55), "{text}");
}

thread_local! {
    /// One file of each thread, because a configuration is read from a path.
    static FILE: RefCell<PathBuf> = RefCell::new(std::env::temp_dir().join(format!(
        "user-service-fuzz-{}-{:?}.toml",
        std::process::id(),
        std::thread::current().id()
    )));
}

fn config_file(input: &[u8]) {
    if let Ok(loaded) = load_file(input) {
        print_and_load(&loaded);
    }
}

fn load_file(contents: &[u8]) -> Result<Loaded, ConfigErrors> {
    FILE.with_borrow(|path| {
        fs::write(path, contents).expect("a temporary file can be written");
        let loaded = Inputs { file: Some(path.clone()), ..Inputs::default() }.load();
        fs::remove_file(path).expect("it is there");
        loaded
    })
}

/// A configuration that is good is the same when it is printed and read again.
fn print_and_load(loaded: &Loaded) {
    let again = load_file(loaded.to_toml().as_bytes()).expect("a printed configuration can be read");
    assert_eq!(settings(loaded), settings(&again));
}

/// `NAME=VALUE`, one a line.
fn config_environment(input: &str) {
    let variables = input.lines().filter_map(|line| line.split_once('='));
    let env = variables.map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let env = env.filter(|(name, _)| name != "USERSVC_CONFIG").collect();
    if let Ok(loaded) = (Inputs { env, ..Inputs::default() }).load() {
        print_and_load(&loaded);
    }
}

/// The settings without where they come from.
fn settings(loaded: &Loaded) -> Vec<String> {
    let printed = loaded.to_toml();
    printed.lines().map(|line| line.rsplit_once(" # ").map_or(line, |(line, _)| line).to_owned()).collect()
}

/// Neither a URL that is shown nor an error holds the password.
fn postgres_url(input: &str) {
    const PASSWORD: &str = "hunter2";
    let said = PostgresUrl::parse(input).map_or_else(|error| error, |url| format!("{url} {url:?}"));
    let authority = input.split_once("://").map_or("", |(_, rest)| rest);
    let authority = &authority[..authority.find(['/', '?']).unwrap_or(authority.len())];
    let login = authority.rsplit_once('@').map_or("", |(login, _)| login);
    if login.split_once(':').is_some_and(|(_, password)| password == PASSWORD)
        && input.matches(PASSWORD).count() == 1
    {
        assert!(!said.contains(PASSWORD), "{said}");
    }
}

/// A line that is read is the same when it is written and read again.
fn import_line(input: &[u8]) {
    let Ok(request) = jsonl::read(input) else { return };
    let ImportUsersRequest { user, user_id } = &request;
    let user = User { id: user_id.clone(), ..user.clone().unwrap_or_default() };
    let line = jsonl::write(user).expect("a user can be written");
    assert_eq!(jsonl::read(line.as_bytes()).as_ref(), Ok(&request));
    let encoded = request.encode_to_vec();
    assert_eq!(ImportUsersRequest::decode(&encoded[..]).as_ref(), Ok(&request));
}

fn key_set(input: &str) {
    if let Ok(keys) = KeySet::parse(input) {
        // With a token of each algorithm, of no key that is known.
        for algorithm in ["RS256", "ES256", "EdDSA"] {
            let _ = keys.find(None).map(|key| &key.decoding);
            let _ = keys.find(Some(algorithm));
        }
    }
}

fn policy(input: &str) {
    if let Ok(policy) = Policy::parse(input) {
        let claims = serde_json::Map::new();
        let nobody = policy.rights_of_token("nobody", &claims);
        // A policy that is read twice grants the same.
        let again = Policy::parse(input).expect("it was read before");
        assert_eq!(nobody, again.rights_of_token("nobody", &claims));
    }
}

/// A token of the issuer, good until the year 2100; its key was thrown away.
const TOKEN: &str = include_str!("../../fuzz/seeds/tokens/good");

/// Who made it.
static ISSUER: LazyLock<(KeySet, Policy, Expected)> = LazyLock::new(|| {
    let keys = KeySet::parse(include_str!("../../fuzz/seeds/key_sets/ed25519.json")).expect("it is good");
    let policy = Policy::parse(include_str!("../../fuzz/seeds/policies/roles.toml")).expect("it is good");
    let flags = [
        ("auth_policy_file", "policy.toml"),
        ("auth_jwks_file", "keys.json"),
        ("auth_issuer", "https://issuer.test"),
        ("auth_audience", "users"),
    ];
    let flags = flags.map(|(name, value)| (name, value.to_owned())).into();
    let loaded = Inputs { flags, ..Inputs::default() }.load().expect("it is good");
    (keys, policy, Expected::new(&loaded.config).expect("both are set"))
});

/// The issuer's token is taken, and no other one.
fn token(input: &str) {
    let (keys, policy, expected) = &*ISSUER;
    let verified = TokenCache::default().verified(input, keys, policy, expected);
    assert_eq!(verified.is_ok(), input == TOKEN, "{input}: {:?}", verified.err());
}
