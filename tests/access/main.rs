//! Who may call what: identities, rules, the audit log and shares, from the built binary.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod audit;
mod caller;
mod documents;
mod issuer;
mod matrix;
mod reloads;
mod settings;
mod shares;
mod tokens;
mod verification;
mod web;
