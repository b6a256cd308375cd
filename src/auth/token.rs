//! Bearer tokens: JWTs (RFC 7519) in the header `authorization` (RFC 6750).

use std::{fmt, mem, sync::Arc};

use http::{HeaderMap, header::AUTHORIZATION};
use jsonwebtoken::{Validation, decode, decode_header, errors::ErrorKind};
use quick_cache::{Weighter, sync::Cache};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{denial::Denial, keys::KeySet, policy::Policy, rules::Rights, unix_seconds};
use crate::{config::Config, domain::Caller};

/// The length of a token in bytes. One of many claims has 2 to 4 KiB.
const MAX_TOKEN_BYTES: usize = 8 * 1_024;

/// The length of a subject in bytes (`OpenID` Connect Core, section 2, allows 255).
const MAX_SUBJECT_BYTES: usize = 255;

/// Bytes of verified tokens that are kept, with what they say: those of some ten thousand
/// callers.
const CACHE_BYTES: usize = 8 * 1_024 * 1_024;

/// What a token weighs besides its text.
const ENTRY_OVERHEAD_BYTES: usize = mem::size_of::<Holder>() + 128;

/// What every token must say.
#[derive(Debug)]
pub struct Expected {
    issuer: String,
    audience: String,
    leeway_seconds: u64,
}

impl Expected {
    /// `None` where no tokens are taken.
    pub fn new(config: &Config) -> Option<Self> {
        Some(Self {
            issuer: config.auth_issuer.text()?.to_owned(),
            audience: config.auth_audience.text()?.to_owned(),
            leeway_seconds: config.auth_leeway.as_secs(),
        })
    }
}

/// The holder of a token that was verified.
#[derive(Debug)]
pub struct Holder {
    pub caller: Caller,
    /// `sub`: the id of the user that the holder is, if it is one.
    pub subject: Arc<str>,
    pub rights: Rights,
    /// `exp`, in seconds since 1970.
    expires: u64,
}

/// The claims that are read here. The policy reads the others.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    exp: f64,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// The token of a call; `None` where there is no `authorization`.
///
/// # Errors
/// A header that is there and no bearer token, or there twice.
pub fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Denial> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Denial::Malformed);
    }
    let text = value.to_str().map_err(|_| Denial::Malformed)?;
    let (scheme, token) = text.split_once(' ').ok_or(Denial::Malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Denial::Malformed);
    }
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Denial::TooLarge);
    }
    Ok(Some(token))
}

/// Verified tokens, bounded in bytes. Belongs to one set of keys and one policy.
///
/// Tokens are found by a hash with a secret key, and compared as a whole. A digest of each,
/// which processors without instructions for it take 4 us for, would be half of what a call
/// costs.
pub struct TokenCache(Cache<Box<str>, Arc<Holder>, Bytes>);

impl Default for TokenCache {
    fn default() -> Self {
        let tokens = CACHE_BYTES / (2 * ENTRY_OVERHEAD_BYTES);
        Self(Cache::with_weighter(tokens, CACHE_BYTES as u64, Bytes))
    }
}

#[derive(Clone)]
struct Bytes;

impl Weighter<Box<str>, Arc<Holder>> for Bytes {
    fn weight(&self, token: &Box<str>, holder: &Arc<Holder>) -> u64 {
        // The subject stands in the caller as well.
        (ENTRY_OVERHEAD_BYTES + token.len() + 2 * holder.subject.len()) as u64
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TokenCache").field(&self.0.len()).finish()
    }
}

impl TokenCache {
    /// The holder of a token, verified now or not long ago.
    pub fn verified(
        &self,
        token: &str,
        keys: &KeySet,
        policy: &Policy,
        expected: &Expected,
    ) -> Result<Arc<Holder>, Denial> {
        if let Some(holder) = self.0.get(token) {
            if holder.expires.saturating_add(expected.leeway_seconds) < unix_seconds() {
                self.0.remove(token);
                return Err(Denial::Expired);
            }
            return Ok(holder);
        }
        let holder = Arc::new(verify(token, keys, policy, expected)?);
        self.0.insert(token.into(), Arc::clone(&holder));
        Ok(holder)
    }
}

/// Checks everything about a token.
fn verify(token: &str, keys: &KeySet, policy: &Policy, expected: &Expected) -> Result<Holder, Denial> {
    let header = decode_header(token).map_err(|_| Denial::Malformed)?;
    let key = keys.find(header.kid.as_deref()).ok_or(Denial::UnknownKey)?;
    // The algorithm of the key: the token's own is only compared with it.
    let mut validation = Validation::new(key.algorithm);
    validation.leeway = expected.leeway_seconds;
    validation.validate_nbf = true;
    validation.set_issuer(&[&expected.issuer]);
    validation.set_audience(&[&expected.audience]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    let claims = decode::<Claims>(token, &key.decoding, &validation)
        .map_err(|error| match error.kind() {
            ErrorKind::InvalidAlgorithm => Denial::Algorithm,
            ErrorKind::InvalidSignature => Denial::Signature,
            ErrorKind::ExpiredSignature => Denial::Expired,
            ErrorKind::ImmatureSignature => Denial::Early,
            ErrorKind::InvalidIssuer => Denial::Issuer,
            ErrorKind::InvalidAudience => Denial::Audience,
            ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) | ErrorKind::Json(_) => {
                Denial::Claims
            }
            _ => Denial::Malformed,
        })?
        .claims;
    // The library takes a list of issuers for one of them.
    if claims.iss != expected.issuer {
        return Err(Denial::Issuer);
    }
    let subject = claims.sub;
    if subject.is_empty() || subject.len() > MAX_SUBJECT_BYTES || subject.contains(char::is_control) {
        return Err(Denial::Claims);
    }
    Ok(Holder {
        caller: Caller::named(format!("sub:{subject}")),
        rights: policy.rights_of_token(&subject, &claims.others),
        subject: subject.into(),
        expires: seconds(claims.exp),
    })
}

/// `exp` as the library rounds it; a time beyond all clocks is the last one.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of a float saturates")]
fn seconds(exp: f64) -> u64 {
    exp.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_tokens_takes_bounded_memory() {
        let cache = TokenCache::default();
        for number in 0..5_000 {
            let holder = Holder {
                caller: Caller::ANONYMOUS,
                subject: "ada".into(),
                rights: Rights::default(),
                expires: u64::MAX,
            };
            cache.0.insert(format!("{number:04096}").into(), Arc::new(holder));
        }
        assert!(cache.0.weight() <= CACHE_BYTES as u64, "{}", cache.0.weight());
        assert!(cache.0.len() > 1_000, "{}", cache.0.len());
        assert!(cache.0.len() * 4_096 <= CACHE_BYTES, "{} tokens of 4 KiB", cache.0.len());
    }
}
