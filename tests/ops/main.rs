//! What those who run the service rely on, from the built binary.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod admin;
mod cli;
mod cli_client;
mod cli_retry;
mod cli_smoke;
mod clock;
mod collector;
mod exit_codes;
mod files;
mod held_calls;
mod logs;
mod metrics;
mod otelcol;
mod pii_canary;
mod secrets;
mod statuses;
mod tls;
mod traces;
mod watches;
