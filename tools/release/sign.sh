#!/usr/bin/env bash
# Writes the checksums of a folder's files (SHA256SUMS), and signs them (SHA256SUMS.sig):
# sign.sh FOLDER KEY
#
# KEY is a private Ed25519 key in PEM: openssl genpkey -algorithm ed25519 -out KEY
set -euo pipefail
folder=$1 key=$(realpath "$2")
fail() { printf 'release: %s\n' "$*" >&2; exit 1; }

public=$(openssl pkey -in "$key" -noout -text_pub) || fail "$key holds no private key in PEM"
[[ $public == ED25519* ]] || fail "$key is no Ed25519 key: openssl genpkey -algorithm ed25519"
cd "$folder"
rm -f SHA256SUMS SHA256SUMS.sig
mapfile -d '' -t files < <(find . -mindepth 1 -printf '%P\0' | LC_ALL=C sort -z)
((${#files[@]})) || fail "$folder is empty"
sums=$(sha256sum -- "${files[@]}")
printf '%s\n' "$sums" >SHA256SUMS
openssl pkeyutl -sign -rawin -inkey "$key" -in SHA256SUMS -out SHA256SUMS.sig
