//! What must hold between settings, and what a type alone cannot tell.

use std::net::SocketAddr;

use tracing_subscriber::EnvFilter;

use super::{ConfigErrors, Loaded, Source, StoreUrl};

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
    let (queue, calls) = ("store_queue", "max_unary_calls");
    let is_set = *loaded.source(queue) != Source::Default;
    if is_set && good(&[queue, calls]) && config.store_queue >= config.max_unary_calls.max(2) {
        let (queue, calls) = (named(loaded, queue), named(loaded, calls));
        let limit = config.max_unary_calls;
        errors.add_between(format!("{queue} must be less than {calls}, which is {limit}"));
    }
    if good(&["auth_leeway_ms"]) && config.auth_leeway.subsec_nanos() != 0 {
        let leeway = named(loaded, "auth_leeway_ms");
        errors.add_between(format!("{leeway} must be whole seconds, such as 2000"));
    }
    check_tls(loaded, errors);
    check_identity(loaded, errors);
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

/// What TLS needs together. Half of it would be a port that is open by mistake.
fn check_tls(loaded: &Loaded, errors: &mut ConfigErrors) {
    for (key, needed) in [
        ("tls_cert_file", "tls_key_file"),
        ("tls_key_file", "tls_cert_file"),
        ("tls_client_ca_file", "tls_cert_file"),
        ("tls_client_auth", "tls_client_ca_file"),
        ("tls_issuer_ca_file", "tls_cert_file"),
        ("store_cert_file", "store_key_file"),
        ("store_key_file", "store_cert_file"),
    ] {
        if loaded.is_changed(key) && !loaded.is_changed(needed) {
            errors.add_between(format!("{} needs {needed}, too", named(loaded, key)));
        }
    }
}

/// Identity is on or off as a whole: a part of it alone would be taken for protection.
fn check_identity(loaded: &Loaded, errors: &mut ConfigErrors) {
    let (file, url) = ("auth_jwks_file", "auth_jwks_url");
    if loaded.is_changed(file) && loaded.is_changed(url) {
        errors.add_between(format!("{} and {} exclude each other", named(loaded, file), named(loaded, url)));
    }
    if loaded.is_changed("auth_jwks_ca_file") && !loaded.is_changed(url) {
        errors.add_between(format!("{} needs {url}, too", named(loaded, "auth_jwks_ca_file")));
    }
    let keys = if loaded.is_changed(url) { url } else { file };
    let tokens = [keys, "auth_issuer", "auth_audience"];
    let policy = loaded.is_changed("auth_policy_file");
    let Some(set) = tokens.iter().find(|name| loaded.is_changed(name)) else {
        if policy && !loaded.is_changed("tls_client_ca_file") {
            let policy = named(loaded, "auth_policy_file");
            let (keys, ca) = (named(loaded, keys), named(loaded, "tls_client_ca_file"));
            errors.add_between(format!("{policy} needs identities: set {keys} or {ca}"));
        }
        return;
    };
    let set = named(loaded, set);
    for missing in tokens.iter().filter(|name| !loaded.is_changed(name)) {
        let missing = named(loaded, missing);
        errors.add_between(format!("{missing} must be set too, next to {set}"));
    }
    if !policy {
        let policy = named(loaded, "auth_policy_file");
        errors.add_between(format!("{policy} must be set too: without a policy {set} protects nothing"));
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
