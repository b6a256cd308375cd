#!/usr/bin/env bash
# What a release must pass, besides the tests: check.sh ARCH
set -euo pipefail
cd "$(dirname "$0")/../.."
arch=$1
target_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")
deny() { PATH="$target_dir/tools/bin:$PATH" cargo deny --locked --log-level warn check --hide-inclusion-graph "$@"; }
step() { printf '\n== %s\n' "$*"; }

step "dependencies: bans, licences and sources, as deny.toml has them"
deny bans licenses sources
step "dependencies: advisories"
if compgen -G "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs/*" >/dev/null; then
    deny --disable-fetch advisories
else
    echo "NOT CHECKED: there is no database of advisories here; \`cargo deny fetch db\` gets RustSec's from GitHub"
fi
step "bills of materials"
tools/release/bills.sh "$arch" "$target_dir/release-check/binary.cdx.json" "$target_dir/release-check/image.cdx.json"
step "a second build"
tools/release/reproduce.sh "$arch"
