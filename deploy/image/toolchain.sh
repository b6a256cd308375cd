#!/bin/sh
# Installs, on Debian, what compile.sh needs for an architecture besides Rust: a C
# compiler for it (SQLite is C), musl, Rust's standard library for both, and cargo-auditable.
set -eu
arch=$1
case $arch in
amd64) cpu=x86_64 package=gcc-x86-64-linux-gnu ;;
arm64) cpu=aarch64 package=gcc-aarch64-linux-gnu ;;
*) echo "no image for $arch: it must be amd64 or arm64" >&2; exit 1 ;;
esac

own=$(dpkg --print-architecture)
[ "$arch" != "$own" ] || package=gcc
if ! { command -v "$cpu-linux-gnu-gcc" && [ -e "/usr/lib/$cpu-linux-musl/musl-gcc.specs" ] &&
    [ -e /etc/ssl/certs/ca-certificates.crt ]; } >/dev/null; then
    if [ "$(id -u)" != 0 ]; then
        echo "please install, as root: ca-certificates $package libc6-dev musl-dev:$arch" >&2
        exit 1
    fi
    [ "$arch" = "$own" ] || dpkg --add-architecture "$arch"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        ca-certificates "$package" libc6-dev "musl-dev:$arch"
fi
rustup target add "$cpu-unknown-linux-musl"
"$(dirname "$0")/../../tools/cargo-tool.sh" cargo-auditable@0.7.7
# llvm-profdata, for what is trained.
if [ -z "${PROFILE:-}" ] && [ "${PGO:-1}" != 0 ] && [ "$arch" = "$own" ]; then
    rustup component add llvm-tools
fi
