//! What the server does on the wire: connections, frames, drains.

#![allow(clippy::unwrap_used, clippy::match_wild_err_arm, reason = "a test that panics has said enough")]

mod caller;
mod conformance;
mod connections;
mod early_answers;
mod exhaustion;
mod incomplete_requests;
mod limits;
mod lingering_close;
mod malformed;
mod peer;
mod rollout;
mod trivial;

#[path = "../support/mod.rs"]
mod support;
