#!/usr/bin/env bash
# Whether the Dockerfile's last stage still makes the image that the chart relies
# on, the same one each time, whether the report knows one that is too large, and by which
# profile a build compiles, if by any.
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
# Each training counts something else.
cat >"$root/deploy/image/train.sh" <<'EOF'
#!/bin/sh
echo trained
mktemp --dry-run >"$3"
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
    (cd "$root" && env -u RUSTFLAGS -u CARGO_TARGET_DIR -u PGO -u PROFILE PATH="$work/bin:$PATH" "${@:2}" deploy/image/build.sh "$1") \
        >"$work/said" 2>&1
}
built() { # architecture, pattern
    grep -q -e "$2" "$root/target/image/$1/user-service" && return
    echo "image: the build for $1 is not $2:" >&2
    cat "$work/said" "$root/target/image/$1/user-service" >&2
    exit 1
}
kept() { # architecture, the profile that must be next to its binary
    cmp "$root/target/image/$1/user-service.profdata" "$2" && return
    echo "image: the profile of $1 is not kept" >&2
    exit 1
}
trainings() { # how many the last build has made
    [[ $(grep -c '^trained$' "$work/said") == "$1" ]] && return
    echo "image: not $1 trainings:" >&2
    cat "$work/said" >&2
    exit 1
}
refused() { # reason, environment
    rm -f "$root/target/image/$own/user-service"
    if build "$own" "${@:2}" || [[ -e $root/target/image/$own/user-service ]]; then
        echo "image: a build with ${*:2} passes" >&2
        exit 1
    fi
    grep -q -e "$1" "$work/said" || { cat "$work/said" >&2; exit 1; }
}
build "$own" HOT=500
built "$own" '-Cprofile-use=/.*\.profdata$'
trainings 1
cp "$root/target/image/$own/user-service" "$work/first"
cp "$root/target/image/$own/user-service.profdata" "$work/first.profdata"
build "$own" HOT=500
trainings 0
kept "$own" "$work/first.profdata"
build "$other" HOT=0
built "$other" '^built $'
grep -q "$other: without a profile" "$work/said" || { cat "$work/said" >&2; exit 1; }
build "$own" PGO=0 HOT=0
built "$own" '^built $'
if [[ -e $root/target/image/$own/user-service.profdata ]]; then
    echo "image: a build without a profile has one" >&2
    exit 1
fi

# The profile of a build that is given to another one: nothing is trained, and cargo is asked for
# the same. Other contents have another name, or cargo would not compile again.
build "$own" PROFILE="$work/first.profdata" HOT=500
trainings 0
cmp "$root/target/image/$own/user-service" "$work/first"
kept "$own" "$work/first.profdata"
echo another >"$root/given"
build "$own" PROFILE=given PGO=0 HOT=500
kept "$own" "$root/given"
if cmp --silent "$root/target/image/$own/user-service" "$work/first"; then
    echo "image: cargo does not see that a profile is another one" >&2
    exit 1
fi
build "$other" PROFILE=given HOT=500
built "$other" '-Cprofile-use=/.*\.profdata$'
kept "$other" "$root/given"

refused 'rustc has not used' HOT=0
refused 'rustc has not used' PROFILE=given HOT=0
refused 'no profile that can be read' PROFILE=nothing HOT=500
refused 'no profile that can be read' PROFILE=deploy HOT=500
