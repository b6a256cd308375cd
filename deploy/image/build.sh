#!/bin/sh
# Builds the binary of the image for an architecture: target/image/ARCH/user-service.
#
# It is compiled with counters, trained (train.sh), and compiled again by the profile. The
# counts of a training differ a little each time, and so do the binaries. An architecture
# that this machine cannot run is built without a profile, because names of functions hold
# the target and another target's profile fits none. It takes three times as long as a build
# without a profile, which is what PGO=0, the default, asks for.
set -eu
arch=$1
target_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")
out=$target_dir/image/$arch
cd "$(dirname "$0")/../.."

if [ "${PGO:-0}" = 0 ]; then
    exec deploy/image/compile.sh "$arch" plain
fi
if [ "$arch" != "$(dpkg --print-architecture)" ]; then
    echo "$arch: without a profile, because this machine cannot run it to train it"
    exec deploy/image/compile.sh "$arch" plain
fi

load=$target_dir/bench/cargo/release/load
deploy/image/compile.sh "$arch" instrumented
cargo build --manifest-path benches/Cargo.toml --target-dir "$target_dir/bench/cargo" --locked --release -p load
# Cargo compares the path of a profile and not its contents. So a new profile gets a new
# name, and a binary whose sources are the same is not trained again.
trained=$(cat "$out/user-service-instrumented" "$load" deploy/image/train.sh | sha256sum | cut -c 1-16)
profile=$out/$trained.profdata
if [ ! -e "$profile" ]; then
    rm -f "$out"/*.profdata
    deploy/image/train.sh "$out/user-service-instrumented" "$load" "$profile"
fi
deploy/image/compile.sh "$arch" "$profile"
