#!/bin/sh
# Makes the archive of the image from the compiled binary: target/image/ARCH/image.tar.
# REVISION and CREATED are those of the commit, and go into the image's labels.
set -eu
arch=$1
image=$(realpath -m "${CARGO_TARGET_DIR:-target}")/image/$arch
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
rm -rf "$image/staged"
deploy/image/stage.sh "$image/user-service" "$image/staged"
python3 deploy/image/assemble.py --arg "VERSION=$version" --arg "REVISION=${REVISION:-$(git rev-parse HEAD)}" \
    --arg "CREATED=${CREATED:-$(git log -1 --format=%cI)}" \
    "$arch" "$image/staged" "localhost/user-service:$version" "$image/image.tar"
