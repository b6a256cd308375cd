//! A gRPC user service. docs/ARCHITECTURE.md is the way in.

pub mod admin;
pub mod app;
pub mod auth;
pub mod cli;
pub mod config;
pub mod domain;
pub mod edge;
pub mod feed;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod layers;
pub mod listener;
pub mod proto;
pub mod rpc;
pub mod service;
pub mod shutdown;
pub mod signals;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod util;
