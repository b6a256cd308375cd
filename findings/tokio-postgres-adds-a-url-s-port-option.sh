#!/usr/bin/env bash
# tokio-postgres 0.7.18: the option `port` of a URL is added to the port before the path.
#
# A connection URI of PostgreSQL may name host and port before its path or as options (chapter
# "Connection URIs" of libpq's manual). psql and libpq take the last one that is named, so that
# postgres://me@db/users?port=6432 leads to port 6432 of db. tokio-postgres keeps both, as it
# does with hosts: a host before the path always has a port there, 5432 where none is
# written. The URL parses, has one host and two ports, and connecting then fails with
# "invalid number of ports", whatever is listening. Nothing says that an option is the cause.
#
# Versions: tokio-postgres 0.7.18, tokio 1.54.1 (crates.io).
# Output seen:
#   postgres://me@127.0.0.1/users?port=6432: 1 host, ports [5432, 6432]
#   connecting: invalid configuration: invalid number of ports
#   postgres://me@/users?host=127.0.0.1&port=6432: 1 host, ports [6432]
#
# Exits with another code than 0 where the behaviour has changed. Needs cargo.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
tokio = { version = "=1.54.1", features = ["macros", "net", "rt", "time"] }
tokio-postgres = "=0.7.18"
TOML
cat >src/main.rs <<'RUST'
use std::error::Error;

use tokio_postgres::{Config, NoTls};

fn parsed(url: &str) -> Config {
    let config: Config = url.parse().unwrap();
    println!("{url}: {} host, ports {:?}", config.get_hosts().len(), config.get_ports());
    config
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let config = parsed("postgres://me@127.0.0.1/users?port=6432");
    assert_eq!((config.get_hosts().len(), config.get_ports()), (1, &[5432, 6432][..]));
    let error = config.connect(NoTls).await.err().unwrap();
    let why = error.source().map_or(String::new(), |source| format!(": {source}"));
    println!("connecting: {error}{why}");
    assert!(why.contains("invalid number of ports"), "the behaviour has changed");
    let options = parsed("postgres://me@/users?host=127.0.0.1&port=6432");
    assert_eq!((options.get_hosts().len(), options.get_ports()), (1, &[6432][..]));
}
RUST
cargo run --quiet
