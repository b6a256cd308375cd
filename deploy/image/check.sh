#!/usr/bin/env bash
# Whether the Dockerfile's last stage still makes the image that the chart relies
# on, the same one each time, and whether the report knows one that is too large.
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

truncate --size 16M "$work/staged/user-service"
python3 deploy/image/assemble.py amd64 "$work/staged" localhost/user-service:1.2.3 "$work/large.tar"
report=$(python3 deploy/image/report.py "$work/large.tar" 2>&1) && { echo "image: 16 MiB pass" >&2; exit 1; }
[[ $report == *"16.0 MiB, and 15 MiB at most"* ]] || { echo "image: 16 MiB fail for another reason: $report" >&2; exit 1; }
