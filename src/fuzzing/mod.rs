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
use jsonwebtoken::Algorithm;
use opentelemetry::{SpanId, TraceId};
use prost::Message as _;
use serde_json::Value;

use crate::{
    auth::{
        keys::KeySet,
        policy::Policy,
        token::{Expected, TokenCache},
    },
    cli::jsonl,
    config::{ConfigErrors, Inputs, Loaded, PostgresUrl},
    domain::{PageToken, Progress, ResumeToken},
    layers,
    proto::user::v1::{ImportUsersRequest, User},
    rpc::methods::{METHODS, Method},
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

/// A token that is taken is the one that its position is written as, and names an id that
/// a user can have.
fn page_token(input: &str) {
    if let Ok(token) = PageToken::parse(input) {
        assert_eq!(token.encode(), input);
        assert_is_id(token.id().as_str());
    }
}

fn resume_token(input: &str) {
    if let Ok(token) = ResumeToken::parse(input) {
        assert_eq!(token.encode(), input);
        if let Progress::Scan { last: Some(id), .. } = token.at {
            assert_is_id(id.as_str());
        }
    }
}

fn assert_is_id(id: &str) {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    assert!((1..=63).contains(&id.len()) && id.bytes().all(is_allowed), "{id:?}");
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
    assert!(trace != TraceId::INVALID && span != SpanId::INVALID, "{text}");
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
    // Of all values as the service uses them, but for a password, which is never printed.
    assert_eq!(format!("{:?}", loaded.config), format!("{:?}", again.config));
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

/// Neither a URL that is shown nor an error holds the password.
fn postgres_url(input: &str) {
    const PASSWORD: &str = "hunter2";
    let said = PostgresUrl::parse(input).map_or_else(|error| error, |url| format!("{url} {url:?}"));
    if login(input).contains(PASSWORD) && input.matches(PASSWORD).count() == 1 {
        assert!(!said.contains(PASSWORD), "{said}");
    }
}

/// What stands in a URL where its password is meant to be: behind the user, up to the last @.
fn login(url: &str) -> &str {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let authority = &rest[..rest.find(['/', '?']).unwrap_or(rest.len())];
    // An @ behind the authority ends a password with a / or a ? that is not escaped. With an
    // option that names the user, it belongs to the database or to an option.
    let is_whole = authority.contains('@') || rest.contains("user=");
    let until = if is_whole { authority.rfind('@') } else { rest.rfind('@') };
    let login = &rest[..until.unwrap_or(0)];
    login.split_once(':').map_or("", |(_, password)| password)
}

/// A line that is read is what its JSON says, and the same when it is written and read again.
fn import_line(input: &[u8]) {
    let Ok(request) = jsonl::read(input) else { return };
    let ImportUsersRequest { user, user_id } = &request;
    let said: Value = serde_json::from_slice(input).expect("only JSON is read");
    let read = user.as_ref().expect("a line is a user");
    let fields = [("id", user_id), ("name", &read.name), ("email", &read.email)];
    assert!(fields.iter().all(|(name, text)| said[name].as_str().unwrap_or_default() == *text), "{said}");
    assert_eq!(said["age"].as_i64(), Some(read.age.into()));
    assert_eq!(said.get("create_time").is_some_and(Value::is_string), read.create_time.is_some());
    let user = User { id: user_id.clone(), ..user.clone().unwrap_or_default() };
    let line = jsonl::write(user).expect("a user can be written");
    assert_eq!(jsonl::read(line.as_bytes()).as_ref(), Ok(&request));
    let encoded = request.encode_to_vec();
    assert_eq!(ImportUsersRequest::decode(&encoded[..]).as_ref(), Ok(&request));
}

/// A set that is taken holds no secret, and a key that is found is the only one of its name.
fn key_set(input: &str) {
    let Ok(keys) = KeySet::parse(input) else { return };
    let said: Value = serde_json::from_str(input).expect("only JSON is read");
    let listed = said["keys"].as_array().expect("only a list is read");
    assert!((1..=64).contains(&listed.len()), "{} keys", listed.len());
    for secret in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        assert!(listed.iter().all(|key| key.get(secret).is_none()), "{secret} is secret");
    }
    for id in listed.iter().filter_map(|key| key["kid"].as_str()) {
        let Some(found) = keys.find(Some(id)) else { continue };
        // A key of this kind is for one algorithm only.
        let kind = match found.algorithm {
            Algorithm::RS256 => "RSA",
            Algorithm::ES256 => "EC",
            Algorithm::EdDSA => "OKP",
            other => panic!("{other:?} is for no key"),
        };
        let mut named = listed.iter().filter(|key| key["kid"] == id);
        assert!(named.any(|key| key["kty"] == kind), "{id} is no {kind}");
    }
    let unnamed = "a name that no key has";
    assert!(input.contains(unnamed) || keys.find(Some(unnamed)).is_none());
}

/// A policy that is taken names only methods and roles that there are, and gives a token
/// without a claim nothing that no grant gives it.
fn policy(input: &str) {
    let Ok(policy) = Policy::parse(input) else { return };
    let said: toml::Table = input.parse().expect("only TOML is read");
    let roles = said["roles"].as_table().expect("only roles are read");
    for method in roles.values().flat_map(|role| [texts(role, "methods"), texts(role, "self")].concat()) {
        let is_meant = |known: &Method| match method.strip_suffix("/*") {
            Some(service) => known.service() == service,
            None => known.full_name() == method,
        };
        assert!(METHODS.iter().any(is_meant), "{method}");
    }
    let grants = said["grants"].as_array().expect("only grants are read");
    assert!(!grants.is_empty(), "a policy that grants nothing");
    assert!(grants.iter().flat_map(|grant| texts(grant, "roles")).all(|role| roles.contains_key(&role)));
    let is_for_nobody = |grant: &toml::Value| {
        let has_claims =
            grant.get("claims").and_then(toml::Value::as_table).is_some_and(|all| !all.is_empty());
        let is_named = texts(grant, "subjects").iter().any(|subject| subject == "nobody");
        let is_for_any = grant.get("any_token").and_then(toml::Value::as_bool) == Some(true);
        !has_claims && (is_named || is_for_any)
    };
    let rights = |policy: &Policy| policy.rights_of_token("nobody", &serde_json::Map::new());
    let has_any = rights(&policy) != rights(&Policy::default());
    assert_eq!(has_any, grants.iter().any(is_for_nobody), "{input}");
}

/// The texts of a list.
fn texts(table: &toml::Value, name: &str) -> Vec<String> {
    let list = table.get(name).and_then(toml::Value::as_array);
    list.into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
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
