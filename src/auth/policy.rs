//! The policy: a file that says which roles an identity has, and which methods a role
//! may call.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::rules::{self, Rights};
use crate::rpc::peer::PeerIdentity;

/// The file, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    roles: BTreeMap<String, RoleText>,
    grants: Vec<GrantText>,
}

/// The methods of one role.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleText {
    /// `package.Service/Method` or `package.Service/*`, for every user's record.
    #[serde(default)]
    methods: Vec<String>,
    /// The same for the record of the caller itself.
    #[serde(default, rename = "self")]
    own: Vec<String>,
}

/// Who has which roles. Every condition that is there must hold.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantText {
    roles: Vec<String>,
    /// Every caller with a valid token.
    #[serde(default)]
    any_token: bool,
    /// The `sub` of a token.
    #[serde(default)]
    subjects: Vec<String>,
    /// A claim of a token, and the values of which it has one.
    #[serde(default)]
    claims: BTreeMap<String, Vec<String>>,
    /// The URI or a DNS name of a client certificate.
    #[serde(default)]
    certificates: Vec<String>,
}

/// A policy that is good.
#[derive(Debug, Default)]
pub struct Policy {
    tokens: Vec<TokenGrant>,
    certificates: BTreeMap<String, Rights>,
}

#[derive(Debug)]
struct TokenGrant {
    subjects: Vec<String>,
    claims: BTreeMap<String, Vec<String>>,
    rights: Rights,
}

impl Policy {
    /// Reads the file's text (TOML).
    ///
    /// # Errors
    /// The fault, and where it is: no part of a policy is used unless all of it can be.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|error| {
            // The message alone: the whole error quotes the line, which may name a person.
            let before = error.span().and_then(|at| text.get(..at.start)).unwrap_or_default();
            let line = 1 + before.matches('\n').count();
            format!("is not a policy: line {line}: {}", error.message())
        })?;
        let mut roles = BTreeMap::new();
        for (name, role) in &file.roles {
            roles.insert(name.as_str(), role.rights().map_err(|why| format!("role {name:?}: {why}"))?);
        }
        if file.grants.is_empty() {
            return Err("grants nothing to anybody: add a [[grants]]".into());
        }
        let mut policy = Self::default();
        for (index, grant) in file.grants.into_iter().enumerate() {
            policy.add(grant, &roles).map_err(|why| format!("grant {}: {why}", index + 1))?;
        }
        Ok(policy)
    }

    fn add(&mut self, grant: GrantText, roles: &BTreeMap<&str, Rights>) -> Result<(), String> {
        let GrantText { roles: names, any_token, subjects, claims, certificates } = grant;
        if names.is_empty() {
            return Err("names no role".into());
        }
        let mut rights = Rights::default();
        for name in &names {
            let role = roles.get(name.as_str()).ok_or_else(|| format!("there is no role {name:?}"))?;
            rights = rights.union(*role);
        }
        if let Some((claim, _)) = claims.iter().find(|(_, values)| values.is_empty()) {
            return Err(format!("the claim {claim:?} has no value to be compared with"));
        }
        let of_tokens = any_token || !subjects.is_empty() || !claims.is_empty();
        match (of_tokens, certificates.is_empty()) {
            (false, true) => {
                return Err("must say whom it is for: any_token, subjects, claims or certificates".into());
            }
            (true, false) => {
                return Err("is for tokens and for certificates: make two grants of it".into());
            }
            (true, true) if any_token && !(subjects.is_empty() && claims.is_empty()) => {
                return Err("any_token makes its other conditions meaningless: leave one of them out".into());
            }
            (true, true) => self.tokens.push(TokenGrant { subjects, claims, rights }),
            (false, false) => {
                for name in certificates {
                    // DNS names are equal whatever their case; URIs are not.
                    let name = if name.contains(':') { name } else { name.to_ascii_lowercase() };
                    let held = self.certificates.entry(name).or_default();
                    *held = held.union(rights);
                }
            }
        }
        Ok(())
    }

    /// What a token with this subject and these claims may do.
    pub fn rights_of_token(&self, subject: &str, claims: &serde_json::Map<String, Value>) -> Rights {
        let held = self.tokens.iter().filter(|grant| grant.is_for(subject, claims));
        held.fold(Rights::default(), |rights, grant| rights.union(grant.rights))
    }

    /// What the client of this certificate may do, by all of its names together. It has no
    /// record.
    pub fn rights_of_peer(&self, peer: &PeerIdentity) -> Rights {
        let held = peer.uri().into_iter().chain(peer.dns_names());
        let held = held.filter_map(|name| self.certificates.get(name));
        held.fold(Rights::default(), |rights, more| rights.union(*more))
    }
}

impl RoleText {
    fn rights(&self) -> Result<Rights, String> {
        let mut rights = Rights::default();
        for name in &self.methods {
            let methods = rules::rights(name);
            if methods.is_empty() {
                return Err(unknown(name));
            }
            for method in methods {
                rights.all.insert(method);
            }
        }
        for name in &self.own {
            let [method] = rules::rights(name)[..] else { return Err(unknown(name)) };
            if !rules::is_of_one_record(method) {
                return Err(format!("self is no condition of {name}, which is not about one user's record"));
            }
            rights.own.insert(method);
        }
        if rights == Rights::default() {
            return Err("has no method".into());
        }
        Ok(rights)
    }
}

fn unknown(name: &str) -> String {
    let hint = if name.starts_with("UserService/") {
        "the article's methods follow those of user.v1.UserService"
    } else {
        "methods are spelt like user.v1.UserService/GetUser"
    };
    format!("there is no method {name:?} to grant: {hint}")
}

impl TokenGrant {
    fn is_for(&self, subject: &str, claims: &serde_json::Map<String, Value>) -> bool {
        let named = self.subjects.is_empty() || self.subjects.iter().any(|name| name == subject);
        named
            && self.claims.iter().all(|(name, wanted)| {
                claim(claims, name).is_some_and(|value| {
                    wanted.iter().any(|wanted| has(value, wanted, matches!(name.as_str(), "scope" | "scp")))
                })
            })
    }
}

/// A claim by its name, or by the way to it within objects: `realm_access.roles`.
fn claim<'a>(claims: &'a serde_json::Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let (outer, inner) = name.split_once('.')?;
    claim(claims.get(outer)?.as_object()?, inner)
}

/// Whether a claim is this text or a list that holds it. A list of scopes is one text with
/// spaces (RFC 8693, 4.2).
fn has(value: &Value, wanted: &str, is_scope: bool) -> bool {
    match value {
        Value::String(text) if is_scope => text.split(' ').any(|part| part == wanted),
        Value::String(text) => text == wanted,
        Value::Array(values) => values.iter().any(|value| value.as_str() == Some(wanted)),
        _ => false,
    }
}
