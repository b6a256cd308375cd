#!/bin/sh
# Installs programs of crates.io into target/tools, each at the version that is named and
# with the dependencies that its lock file names: cargo-tool.sh NAME@VERSION..
set -eu
root=$(realpath -m "${CARGO_TARGET_DIR:-target}")/tools
for tool; do
    if grep -qsF "\"${tool%@*} ${tool#*@} (" "$root/.crates.toml"; then
        continue
    fi
    printf '\n== compiling %s\n' "$tool"
    # Optimising them takes longer than they run.
    CARGO_TARGET_DIR=$root/build CARGO_PROFILE_DEV_DEBUG=0 \
        cargo install --quiet --locked --debug --no-default-features --root "$root" "$tool"
    rm -rf "$root/build"
done
