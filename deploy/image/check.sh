#!/usr/bin/env bash
# Whether the Dockerfile's last stage still makes the image that the chart relies
# on, the same one each time, whether the report knows one that is too large, and whether
# a build refuses a profile that rustc has not used.
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/staged/base/etc/ssl/certs" "$work/staged/base/tmp" "$work/staged/data"
chmod 1777 "$work/staged/base/tmp"
install -m 755 /dev/null "$work/staged/user-service"
for run in 1 2; do
    python3 deploy/image/assemble.py --arg VERSION=1.2.3 amd64 "$work/staged" localhost/user-service:1.2.3 "$work/$run.tar"
done
cmp "$work/1.tar" "$work/2.tar"
python3 deploy/image/report.py "$work/1.tar" >"$work/1.txt"
for line in 'user 65532:65532, in /data, runs \[./user-service.\]' 'org.opencontainers.image.version=1\.2\.3' \
    'd1777 0:0 +0 /tmp' 'd[0-7]{4} 65532:65532 +0 /data' '-0755 0:0 +0 /user-service'; do
    grep -Eq -e "^ +$line\$" "$work/1.txt" || { echo "image: nothing like $line in:" >&2; cat "$work/1.txt" >&2; exit 1; }
done

truncate --size 18M "$work/staged/user-service"
python3 deploy/image/assemble.py amd64 "$work/staged" localhost/user-service:1.2.3 "$work/large.tar"
report=$(python3 deploy/image/report.py "$work/large.tar" 2>&1) && { echo "image: 18 MiB pass" >&2; exit 1; }
[[ $report == *"18.0 MiB, and 17 MiB at most"* ]] || { echo "image: 18 MiB fail for another reason: $report" >&2; exit 1; }

# A cargo that compiles nothing, and has HOT functions hot where it is given a profile.
root=$work/root
mkdir -p "$root/deploy/image" "$work/bin" "$root/target/bench/cargo/release"
cp deploy/image/build.sh deploy/image/compile.sh "$root/deploy/image/"
cat >"$root/deploy/image/train.sh" <<'EOF'
#!/bin/sh
echo "$1" >"$3"
EOF
cat >"$work/bin/cargo" <<'EOF'
#!/bin/sh
case "$*" in *benches*) echo >target/bench/cargo/release/load; exit ;; esac
profile=
for flag in ${RUSTFLAGS:-}; do
    case $flag in
    *-Map=*) yes ' .text.hot._ZN4user' | head -n "$HOT" >"${flag##*-Map=}" ;;
    -Cprofile-*) profile=$flag ;;
    esac
done
cpu=x86_64
case "$*" in *aarch64*) cpu=aarch64 ;; esac
mkdir -p "target/$cpu-unknown-linux-musl/release"
echo "built $profile" >"target/$cpu-unknown-linux-musl/release/user-service"
EOF
chmod +x "$work/bin/cargo" "$root/deploy/image/train.sh"
own=$(dpkg --print-architecture) other=arm64
[[ $own == amd64 ]] || other=amd64
build() { # architecture, environment
    (cd "$root" && env -u RUSTFLAGS -u CARGO_TARGET_DIR PATH="$work/bin:$PATH" "${@:2}" deploy/image/build.sh "$1") \
        >"$work/said" 2>&1
}
built() { # architecture, pattern
    grep -q -e "$2" "$root/target/image/$1/user-service" && return
    echo "image: the build for $1 is not $2:" >&2
    cat "$work/said" "$root/target/image/$1/user-service" >&2
    exit 1
}
build "$own" PGO=0 HOT=0
built "$own" '^built $'
build "$own" PGO=1 HOT=500
built "$own" '-Cprofile-use=/.*\.profdata$'
build "$other" PGO=1 HOT=0
built "$other" '^built $'
rm "$root/target/image/$own/user-service"
if build "$own" PGO=1 HOT=0 || [[ -e $root/target/image/$own/user-service ]]; then
    echo "image: a profile that was not used passes" >&2
    exit 1
fi
grep -q 'rustc has not used' "$work/said" || { cat "$work/said" >&2; exit 1; }
