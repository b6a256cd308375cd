//! Both contracts, health and reflection through clients that no one here wrote.
//! `make tools` brings them.

mod buf_curl;
mod grpcurl;
mod libraries;
mod probe;
mod readme;
mod rollout;
mod run;
#[path = "../support/mod.rs"]
mod support;
mod tls;
#[path = "../access/tokens.rs"]
#[allow(dead_code, reason = "tests/access asks more of it")]
mod tokens;
