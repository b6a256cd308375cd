#!/bin/sh
# Lays out what the image holds: stage.sh BINARY OUT
set -eu
binary=$1 out=$2

# Whatever needs a library or a loader would not start in an empty image.
if LC_ALL=C grep -q -a -e /lib/ld-musl- -e /lib64/ld-linux- -e /lib/ld-linux- "$binary"; then
    echo "$binary is not static" >&2
    exit 1
fi
mkdir -p "$out/base/etc/ssl/certs" "$out/base/tmp" "$out/data"
cp -L /etc/ssl/certs/ca-certificates.crt "$out/base/etc/ssl/certs/"
chmod 1777 "$out/base/tmp"
chmod 750 "$out/data"
cp "$binary" "$out/user-service"
chmod 755 "$out/user-service"
