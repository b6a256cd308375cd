//! The keys that tokens are verified with: a JWK Set (RFC 7517).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse},
};
use serde_json::Value;

/// Keys of one set: more than any issuer has at a time.
const MAX_KEYS: usize = 64;

/// The lengths of an RSA modulus in bytes that the verifier takes.
const RSA_MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1_024;

/// What a JWK of a secret or private key has, and one of a public key never.
const SECRET_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Public keys, each with the one algorithm that it is for.
#[derive(Debug, Default)]
pub struct KeySet(Vec<Key>);

/// A public key.
#[derive(Debug)]
pub struct Key {
    id: Option<String>,
    /// From the key and never from a token.
    pub algorithm: Algorithm,
    pub decoding: DecodingKey,
}

impl KeySet {
    /// Reads the set's text (JSON). Keys of other kinds or uses are passed over, as RFC 7517
    /// (section 5) asks for.
    ///
    /// # Errors
    /// The fault: no part of a set is used that holds a broken key or a secret.
    pub fn parse(text: &str) -> Result<Self, String> {
        let set: Value = serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))?;
        let Some(list) = set.get("keys").and_then(Value::as_array) else {
            return Err("is not a JWK Set: it has no list of keys".into());
        };
        if list.len() > MAX_KEYS {
            return Err(format!("has more than {MAX_KEYS} keys"));
        }
        let mut keys: Vec<Key> = Vec::new();
        for (index, jwk) in list.iter().enumerate() {
            let key = Key::parse(jwk).map_err(|why| format!("key {}: {why}", index + 1))?;
            let Some(key) = key else { continue };
            if keys.iter().any(|other| other.id == key.id) {
                return Err(format!("key {}: another key has the same kid", index + 1));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err("has no key that can be used: RSA (RS256), P-256 (ES256) or Ed25519 (EdDSA)".into());
        }
        Ok(Self(keys))
    }

    /// The key that a token names; without a name, the only key of the set.
    pub fn find(&self, id: Option<&str>) -> Option<&Key> {
        match (id, &self.0[..]) {
            (Some(id), keys) => keys.iter().find(|key| key.id.as_deref() == Some(id)),
            (None, [key]) => Some(key),
            (None, _) => None,
        }
    }
}

impl Key {
    /// `None` for a key of another kind or use.
    fn parse(jwk: &Value) -> Result<Option<Self>, String> {
        if SECRET_MEMBERS.iter().any(|member| jwk.get(member).is_some()) {
            return Err("is a private or symmetric key: the set must hold public keys only".into());
        }
        let kind = jwk.get("kty").and_then(Value::as_str).ok_or("has no kty")?;
        if !["RSA", "EC", "OKP"].contains(&kind) {
            return Ok(None);
        }
        let parsed: Jwk = match serde_json::from_value(jwk.clone()) {
            Ok(parsed) => parsed,
            // Of a curve that is not known here.
            Err(_) if kind != "RSA" && !is_known_curve(jwk) => return Ok(None),
            Err(error) => return Err(format!("is not a JWK: {error}")),
        };
        if parsed.common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature) {
            return Ok(None);
        }
        let algorithm = match &parsed.algorithm {
            AlgorithmParameters::RSA(rsa) => {
                let modulus = bytes(&rsa.n)?;
                let len = modulus.iter().skip_while(|byte| **byte == 0).count();
                if !RSA_MODULUS_BYTES.contains(&len) {
                    return Err("is an RSA key of less than 2048 or more than 8192 bits".into());
                }
                bytes(&rsa.e)?;
                Algorithm::RS256
            }
            AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
                exactly_32(&ec.x)?;
                exactly_32(&ec.y)?;
                Algorithm::ES256
            }
            AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 => {
                exactly_32(&okp.x)?;
                Algorithm::EdDSA
            }
            AlgorithmParameters::Other(_) if kind == "RSA" || is_known_curve(jwk) => {
                return Err("lacks a member of its kty".into());
            }
            _ => return Ok(None),
        };
        if parsed.common.key_algorithm.is_some_and(|named| named != KeyAlgorithm::from(algorithm)) {
            return Ok(None);
        }
        let decoding = DecodingKey::from_jwk(&parsed).map_err(|error| format!("cannot be used: {error}"))?;
        Ok(Some(Self { id: parsed.common.key_id, algorithm, decoding }))
    }
}

fn is_known_curve(jwk: &Value) -> bool {
    matches!(jwk.get("crv").and_then(Value::as_str), Some("P-256" | "Ed25519"))
}

fn bytes(text: &str) -> Result<Vec<u8>, String> {
    match URL_SAFE_NO_PAD.decode(text) {
        Ok(bytes) if !bytes.is_empty() => Ok(bytes),
        _ => Err("has a number that is not base64url".into()),
    }
}

fn exactly_32(text: &str) -> Result<(), String> {
    match bytes(text)?.len() {
        32 => Ok(()),
        len => Err(format!("has a coordinate of {len} bytes instead of 32")),
    }
}
