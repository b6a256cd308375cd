#!/usr/bin/env bash
# Makes the files of a release from the image of this checkout, and signs them:
# release.sh ARCH KEY
set -euo pipefail
cd "$(dirname "$0")/../.."
arch=$1 key=$2
target_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
fail() { printf 'release: %s\n' "$*" >&2; exit 1; }

[[ -n $key ]] || fail "say which key signs it: make release RELEASE_KEY=release.key (README.md says how to make one)"
[[ -z $(git status --porcelain) ]] || fail "the checkout is not what is committed, so nobody could build the same"
folder=$target_dir/release-$version
rm -rf "$folder"
mkdir -p "$folder"
name=user-service-$version
cp "$target_dir/image/$arch/user-service" "$folder/$name-linux-$arch"
# The same bytes can be built by it. A build without a profile has none.
profile=$target_dir/image/$arch/user-service.profdata
[[ ! -e $profile ]] || cp "$profile" "$folder/$name-linux-$arch.profdata"
cp "$target_dir/image/$arch/image.tar" "$folder/$name-image-$arch.tar"
tools/release/bills.sh "$arch" "$folder/$name-linux-$arch.cdx.json" "$folder/$name-image-$arch.cdx.json"
bin/helm package helm/user-service --destination "$folder" >/dev/null
mv "$folder/user-service-$(sed -n 's/^version: //p' helm/user-service/Chart.yaml).tgz" "$folder/$name-chart.tgz"
tools/release/sign.sh "$folder" "$key"
ls "$folder"
