#!/usr/bin/env bash
# tokio-postgres 0.7.18 reads tcp_user_timeout of a connection string in seconds.
#
# libpq has an option of the same name in the same strings, and reads milliseconds
# (https://www.postgresql.org/docs/current/libpq-connect.html). A URL that works with psql
# for 3 seconds, ?tcp_user_timeout=3000, keeps a silent connection for 50 minutes with
# tokio-postgres. connect_timeout and keepalives_idle are in seconds in both.
#
# Output seen:
#   tcp_user_timeout=3000 is 3000s; libpq's would be 3s
#   connect_timeout=3 is 3s
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
tokio-postgres = "=0.7.18"
TOML
cat >src/main.rs <<'RUST'
fn main() {
    let url = "postgres://me@db/users?tcp_user_timeout=3000&connect_timeout=3";
    let config: tokio_postgres::Config = url.parse().expect("both options are known");
    let user = config.get_tcp_user_timeout().expect("it was given");
    let connect = config.get_connect_timeout().expect("it was given");
    println!("tcp_user_timeout=3000 is {user:?}; libpq's would be 3s");
    println!("connect_timeout=3 is {connect:?}");
    assert_eq!((user.as_secs(), connect.as_secs()), (3_000, 3));
}
RUST
cargo run --quiet
