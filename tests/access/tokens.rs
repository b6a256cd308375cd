//! An issuer of tokens: its keys are made by the test.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::{
    fs,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    encoding::AsDer,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const ISSUER: &str = "https://issuer.example.test";
pub const AUDIENCE: &str = "user-service";

/// A key pair with its name.
pub struct Key {
    pub id: &'static str,
    pub algorithm: Algorithm,
    pub private: EncodingKey,
}

impl Key {
    pub fn ec(id: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let private = EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref());
        Self { id, algorithm: Algorithm::ES256, private }
    }

    pub fn ed(id: &'static str) -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let private = EncodingKey::from_ed_der(pair.to_pkcs8v1().unwrap().as_ref());
        Self { id, algorithm: Algorithm::EdDSA, private }
    }

    pub fn rsa(id: &'static str) -> Self {
        /// What stands before the key in a PKCS #8 document of 2048 bits.
        const HEADER_BYTES: usize = 26;
        let pair = aws_lc_rs::signature::RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let document = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der>::as_der(&pair).unwrap();
        let private = EncodingKey::from_rsa_der(&document.as_ref()[HEADER_BYTES..]);
        Self { id, algorithm: Algorithm::RS256, private }
    }

    /// The public half, as a JWK.
    pub fn public(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.private, self.algorithm).unwrap();
        jwk.common.key_id = Some(self.id.into());
        serde_json::to_value(jwk).unwrap()
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.into()), ..Header::new(self.algorithm) };
        encode(&header, claims, &self.private).unwrap()
    }
}

/// The set of these keys' public halves.
pub fn jwks(keys: &[&Key]) -> String {
    json!({ "keys": keys.iter().map(|key| key.public()).collect::<Vec<_>>() }).to_string()
}

/// Seconds since 1970, so many from now.
pub fn from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    i64::try_from(now).unwrap() + seconds
}

/// Good claims of this subject, changed by `changes`; null takes a claim away.
pub fn claims(subject: &str, changes: &Value) -> Value {
    let mut claims = json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "exp": from_now(600) });
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

/// A token of parts that no library would sign.
pub fn raw(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{}", part(header), part(claims), URL_SAFE_NO_PAD.encode(signature))
}

/// A folder with keys and a policy, and the arguments that name them.
pub struct Files {
    folder: TempDir,
}

impl Files {
    pub fn new(keys: &str, policy: &str) -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap() };
        fs::write(files.keys(), keys).unwrap();
        fs::write(files.policy(), policy).unwrap();
        files
    }

    pub fn keys(&self) -> PathBuf {
        self.folder.path().join("jwks.json")
    }

    pub fn policy(&self) -> PathBuf {
        self.folder.path().join("policy.toml")
    }

    pub fn audit(&self) -> PathBuf {
        self.folder.path().join("audit.log")
    }

    pub fn arguments(&self) -> Vec<String> {
        let path = |path: PathBuf| path.display().to_string();
        [
            ["--auth-jwks-file", &path(self.keys())],
            ["--auth-policy-file", &path(self.policy())],
            ["--auth-issuer", ISSUER],
            ["--auth-audience", AUDIENCE],
        ]
        .iter()
        .flatten()
        .map(|text| (*text).to_owned())
        .collect()
    }

    /// A server with these files, and more arguments.
    pub fn serve(&self, more: &[&str]) -> crate::support::Server {
        let arguments = self.arguments();
        let arguments: Vec<_> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
        crate::support::Server::start(&arguments)
    }
}
