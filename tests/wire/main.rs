//! What the server does on the wire: connections, frames, drains.

#![allow(clippy::unwrap_used, clippy::match_wild_err_arm, reason = "a test that panics has said enough")]

mod admin_http1;
mod conformance;
mod connect;
mod connections;
mod cors;
mod early_answers;
mod exhaustion;
mod grpc_web;
mod http1;
mod http1_connections;
mod incomplete_requests;
mod limits;
mod lingering_close;
mod listener_only;
mod malformed;
mod policing;
mod raw_http1;
mod raw_http2;
mod rollout;
mod shares;
mod tls;
mod tls_clients;
mod tls_rotation;
mod unread_answers;
mod web_http1;

#[path = "../support/mod.rs"]
mod support;
