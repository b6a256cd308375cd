//! Who calls, and what the caller may do.
//!
//! An identity comes from a bearer token (JWT) or from the client's certificate. The policy
//! turns it into the methods that it may call. Keys and policy are files, which are read
//! again when they change; the keys may also come from a URL.
//!
//! **Invariant:** a call that matches no rule is denied. A file that cannot be used never
//! takes the place of one that could.
//! It deliberately knows no message: whether a record is the caller's own is checked where
//! the message is read, by [`Call::authorize`](crate::rpc::call::Call::authorize).

mod denial;
mod jwks_url;
pub mod keys;
pub mod policy;
mod reload;
mod rules;
#[cfg(test)]
mod tests;
pub mod token;

use std::{
    sync::{Arc, PoisonError, RwLock, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use http::HeaderMap;

pub use self::denial::Denial;
use self::{
    jwks_url::{IssuerKeys, UnknownKey},
    keys::KeySet,
    policy::Policy,
    reload::{ReloadMetrics, TextFile, Watched},
    rules::Rule,
    token::{Expected, TokenCache},
};
use crate::{
    config::Config,
    domain::Caller,
    rpc::{call::Access, methods::Method, peer::PeerIdentity},
};

/// How often the files are looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Why the service cannot tell who may call what. Each text names the file and the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{setting} ({name}): {why}")]
pub struct AuthError {
    setting: &'static str,
    name: String,
    why: String,
}

/// A caller that may make a call.
#[derive(Clone, Debug)]
pub struct Granted {
    pub caller: Caller,
    pub access: Access,
}

/// What decides about calls. Made once for the process.
#[derive(Debug)]
pub struct Auth {
    expected: Option<Expected>,
    current: RwLock<Current>,
    unknown_key: UnknownKey,
}

/// The keys and the policy in force, and the tokens that were verified under both.
#[derive(Debug)]
struct Current {
    keys: Arc<KeySet>,
    policy: Arc<Policy>,
    tokens: TokenCache,
}

/// Policy and keys, and what was last read of each.
#[derive(Debug)]
pub struct AuthFiles {
    policy: Watched<Policy>,
    keys: Option<Watched<KeySet>>,
}

impl Auth {
    /// Reads keys and policy; `None` where the configuration names no policy.
    ///
    /// # Errors
    /// A file that cannot be read or used: the service does not start half-configured.
    pub fn open(config: &Config) -> Result<Option<(Arc<Self>, AuthFiles)>, AuthError> {
        let Some(path) = config.auth_policy_file.path() else { return Ok(None) };
        let metrics = ReloadMetrics::new;
        let (policy_file, policy) =
            Watched::open("auth_policy_file", TextFile::new(path), metrics("policy"), Policy::parse)?;
        let unknown_key = UnknownKey::default();
        let opened = match (config.auth_jwks_file.path(), config.auth_jwks_url.url()) {
            (Some(path), _) => {
                let file = TextFile::new(path);
                Some(Watched::open("auth_jwks_file", file, metrics("jwks"), KeySet::parse)?)
            }
            (None, Some(url)) => {
                let issuer = IssuerKeys::new(url, config, &unknown_key);
                Some(Watched::open("auth_jwks_url", issuer, metrics("jwks"), KeySet::parse)?)
            }
            (None, None) => None,
        };
        let (keys_file, keys) = opened.unzip();
        let expected = Expected::new(config);
        let current = Current {
            keys: Arc::new(keys.unwrap_or_default()),
            policy: Arc::new(policy),
            tokens: TokenCache::default(),
        };
        let auth = Self { expected, current: RwLock::new(current), unknown_key };
        Ok(Some((Arc::new(auth), AuthFiles { policy: policy_file, keys: keys_file })))
    }

    /// Whether a method may be called with these headers, over a connection whose client
    /// has shown this certificate.
    ///
    /// # Errors
    /// Why not. A token that is not valid is never made up for by a certificate.
    pub fn authorize(
        &self,
        method: &'static Method,
        headers: &HeaderMap,
        peer: Option<&PeerIdentity>,
    ) -> Result<Granted, Denial> {
        let rule = rules::of(method.id);
        if rule == Rule::Open {
            return Ok(Granted { caller: Caller::ANONYMOUS, access: Access::All });
        }
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let (caller, subject, rights) = if let Some(bearer) = token::bearer(headers)? {
            let expected = self.expected.as_ref().ok_or(Denial::TokenUnexpected)?;
            let verified = current.tokens.verified(bearer, &current.keys, &current.policy, expected);
            if matches!(verified, Err(Denial::UnknownKey)) {
                self.unknown_key.store(true, Relaxed);
            }
            let holder = verified?;
            (holder.caller.clone(), Some(Arc::clone(&holder.subject)), holder.rights)
        } else {
            let peer = peer.ok_or(Denial::Missing)?;
            (caller_of(peer), None, current.policy.rights_of_peer(peer))
        };
        drop(current);
        match rule.access(rights, subject) {
            Some(access) => Ok(Granted { caller, access }),
            None => Err(Denial::NotPermitted(caller)),
        }
    }

    /// Reads the files again whenever they change. Belongs on the control runtime.
    pub async fn watch(self: Arc<Self>, mut files: AuthFiles) {
        let mut interval = tokio::time::interval(POLL_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            // A file of a network can block, and so can an issuer.
            let auth = Arc::clone(&self);
            let looked = tokio::task::spawn_blocking(move || {
                files.policy.look(|policy| auth.replace(|current| current.policy = Arc::new(policy)));
                if let Some(keys) = &mut files.keys {
                    keys.look(|keys| auth.replace(|current| current.keys = Arc::new(keys)));
                }
                files
            });
            let Ok(back) = looked.await else { return };
            files = back;
        }
    }

    /// Puts another policy or other keys in force. Every token is verified again.
    fn replace(&self, change: impl FnOnce(&mut Current)) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut current);
        current.tokens = TokenCache::default();
    }
}

/// The name of a certificate's client. Its kind is in front, so that no token's subject
/// is taken for it.
fn caller_of(peer: &PeerIdentity) -> Caller {
    let kind = if peer.uri().is_some() { "uri" } else { "dns" };
    Caller::named(format!("{kind}:{}", peer.name()))
}

/// Seconds since 1970.
fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
