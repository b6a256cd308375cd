#!/usr/bin/env bash
# Builds binary and image of this checkout a second time in another folder, and compares
# them byte by byte with those of `make image`: reproduce.sh ARCH
#
# Another training would give other bytes, so the second build takes the profile of the first.
set -euo pipefail
cd "$(dirname "$0")/../.."
arch=$1
first=$(realpath -m "${CARGO_TARGET_DIR:-target}")

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
# The length of the path differs as well.
second=$copy/in/another/folder/target
mkdir -p "$second"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "${second%/*}"
cp -r "$first/tools" "$second/tools"
(
    cd "${second%/*}"
    unset CARGO_TARGET_DIR
    profile=$first/image/$arch/user-service.profdata
    [[ -e $profile ]] || profile=
    PGO=0 PROFILE=$profile deploy/image/build.sh "$arch"
    REVISION=$(git -C "$OLDPWD" rev-parse HEAD) CREATED=$(git -C "$OLDPWD" log -1 --format=%cI) deploy/image/pack.sh "$arch"
)
for file in "image/$arch/user-service" "image/$arch/image.tar"; do
    cmp "$first/$file" "$second/$file" || { echo "release: a second build of $file differs" >&2; exit 1; }
    (cd "$first" && sha256sum "$file")
done
echo "release: a second build in another folder gives the same bytes"
