#!/usr/bin/env bash
# Installs what neither cargo nor the other package managers bring: Debian
# packages, and those of Rust's own components that a minimal toolchain lacks.
# Does nothing, quickly, where all of it is there. `packages.sh build` sees to what
# compiling takes and to nothing else.
set -euo pipefail

missing=()
need() { # command, package
    command -v "$1" >/dev/null || missing+=("$2")
}
need cc build-essential      # SQLite and jemalloc are compiled from source
if [[ ${1:-} != build ]]; then
    need strace strace       # the tests watch and break the store's system calls
    need git git
    need faketime faketime   # clocks that jump
    need openssl openssl     # certificates of the tests' own
    need script bsdutils     # a terminal for what shows how far it is
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || need initdb postgresql # a database of the tests' own
    PATH=$PATH:/usr/sbin need pgbouncer pgbouncer
    for more in "$@"; do     # COMMAND=PACKAGE, for what only some targets need
        need "${more%%=*}" "${more#*=}"
    done
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
fi

if ((${#missing[@]})); then
    if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
        echo "please install, with your system's package manager: ${missing[*]}" >&2
        exit 1
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

[[ ${1:-} != build ]] || exit 0
for command in cargo go python3 node npm; do
    command -v "$command" >/dev/null || { echo "please install $command (README.md says which version)" >&2; exit 1; }
done
cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
