#!/usr/bin/env bash
# Makes the bills of materials (CycloneDX) of an architecture's binary and image, and checks
# them: bills.sh ARCH BINARY.cdx.json IMAGE.cdx.json
#
# cargo-cyclonedx writes next to Cargo.toml, so it gets a copy of what it reads.
set -euo pipefail
cd "$(dirname "$0")/../.."
arch=$1 binary=$(realpath -m "$2") image_bill=$(realpath -m "$3")
target_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")
image=$target_dir/image/$arch/image.tar
case $arch in
amd64) cpu=x86_64 ;;
arm64) cpu=aarch64 ;;
*) echo "no image for $arch: it must be amd64 or arm64" >&2; exit 1 ;;
esac

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp --parents -rt "$copy" Cargo.toml Cargo.lock build.rs src
# The time of the commit, and no random serial number, so that the same sources give the same bill.
(
    cd "$copy"
    SOURCE_DATE_EPOCH=$(git -C "$OLDPWD" log -1 --format=%ct) PATH="$target_dir/tools/bin:$PATH" \
        cargo cyclonedx --quiet --format json --spec-version 1.5 --target "$cpu-unknown-linux-musl" \
        --override-filename bill
)
mkdir -p "$(dirname "$binary")" "$(dirname "$image_bill")"
# Neither the folder nor a place to download from belongs to the package's name.
sed -e "s|path+file://$copy#||g" -e 's|?download_url=file://\.||g' "$copy/bill.json" >"$binary"
python3 tools/release/sbom.py --check "$image" "$binary"
# Debian's authorities are the one part of the image that cargo has not brought.
authorities=$(dpkg-query --show --showformat '${Package}=${Version}' ca-certificates)
python3 tools/release/sbom.py "$image" "$binary" "$image_bill" "$authorities"
"$target_dir/tools/python/bin/python" - "$binary" "$image_bill" <<'END'
import pathlib, sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

for path in sys.argv[1:]:
    fault = JsonStrictValidator(SchemaVersion.V1_5).validate_str(pathlib.Path(path).read_text())
    if fault:
        sys.exit(f"{path} is not CycloneDX 1.5: {fault}")
    print(f"{path} is CycloneDX 1.5")
END
