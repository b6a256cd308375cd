#!/bin/sh
# Builds the binary of the image for an architecture: target/image/ARCH/user-service.
#
# It is compiled with counters, trained (train.sh), and compiled again by the profile. That
# takes three times as long as one compilation. From the environment:
#   PROFILE=FILE   compile by this profile, and train nothing
#   PGO=0          compile without a profile
#
# The counts of a training differ a little each time, and so do the binaries. The same
# profile gives the same bytes, so it is kept: user-service.profdata, next to the binary.
# An architecture that this machine cannot run is built without a profile unless one is
# given, because names of functions hold the target and another target's profile fits none.
set -eu
arch=$1
target_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")
out=$target_dir/image/$arch
profile=${PROFILE:+$(realpath -m "$PROFILE")}
cd "$(dirname "$0")/../.."

if [ -n "$profile" ]; then
    if [ ! -f "$profile" ] || [ ! -r "$profile" ]; then
        echo "$profile is no profile that can be read" >&2
        exit 1
    fi
    exec deploy/image/compile.sh "$arch" "$profile"
fi
if [ "${PGO:-1}" = 0 ]; then
    exec deploy/image/compile.sh "$arch" plain
fi
if [ "$arch" != "$(dpkg --print-architecture)" ]; then
    echo "$arch: without a profile, because this machine cannot run it to train it"
    exec deploy/image/compile.sh "$arch" plain
fi

load=$target_dir/bench/cargo/release/load
deploy/image/compile.sh "$arch" instrumented
cargo build --manifest-path benches/Cargo.toml --target-dir "$target_dir/bench/cargo" --locked --release -p load
# A binary whose sources are the same is not trained again.
inputs=$(cat "$out/user-service-instrumented" "$load" deploy/image/train.sh | sha256sum | cut -c 1-16)
trained=$out/trained-$inputs.profdata
if [ ! -e "$trained" ]; then
    rm -f "$out"/trained-*.profdata
    deploy/image/train.sh "$out/user-service-instrumented" "$load" "$trained"
fi
exec deploy/image/compile.sh "$arch" "$trained"
