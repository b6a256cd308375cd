//! What must hold between settings, and what a type alone cannot tell.

use std::net::SocketAddr;

use tracing_subscriber::EnvFilter;

use super::{ConfigErrors, Loaded, StoreUrl};

/// Checks settings against each other, except those that are `bad` in themselves.
pub fn run(loaded: &Loaded, bad: &[String], errors: &mut ConfigErrors) {
    let config = &loaded.config;
    let good = |keys: &[&str]| !bad.iter().any(|bad| keys.contains(&bad.as_str()));

    if good(&["grpc_addr", "admin_addr"]) && same_place(config.grpc_addr, config.admin_addr) {
        let (grpc, admin) = (named(loaded, "grpc_addr"), named(loaded, "admin_addr"));
        let (grpc_addr, admin_addr) = (config.grpc_addr, config.admin_addr);
        errors.add_between(format!("{grpc} and {admin} must differ, but are {grpc_addr} and {admin_addr}"));
    }
    if good(&["default_timeout_ms", "max_timeout_ms"]) && config.default_timeout > config.max_timeout {
        let (default, max) = (named(loaded, "default_timeout_ms"), named(loaded, "max_timeout_ms"));
        let limit = config.max_timeout.as_millis();
        errors.add_between(format!("{default} must be at most {max}, which is {limit}"));
    }
    if let StoreUrl::Postgres(url) = &config.store_url
        && url.verifies()
        && config.store_ca_file.path().is_none()
    {
        let file = named(loaded, "store_ca_file");
        errors.add_between(format!("{file} must name a file for the sslmode of store_url"));
    }
    if let Err(error) = EnvFilter::builder().parse(&config.log_filter) {
        errors.add(loaded.source("log_filter"), format_args!("log_filter is not a filter: {error}"));
    }
}

fn named(loaded: &Loaded, key: &str) -> String {
    format!("{key} ({})", loaded.source(key))
}

/// Whether listening on both would fail.
fn same_place(a: SocketAddr, b: SocketAddr) -> bool {
    let overlap = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && overlap
}
