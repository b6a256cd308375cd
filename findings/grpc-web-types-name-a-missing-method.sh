#!/usr/bin/env bash
# grpc-web 2.1.1 declares a method of its clients that they do not have.
#
# Its types (index.d.ts) give AbstractClientBase, and so GrpcWebClientBase, two calls that
# return a promise: thenableCall and unaryCall. The compiled library has unaryCall alone, so
# a program that TypeScript accepts fails when it runs.
#
# Versions: grpc-web 2.1.1 and typescript 5.9.3 (npm), node 20.20.2.
# Output seen:
#   tsc accepts thenableCall: yes
#   thenableCall is: undefined
#   unaryCall is: function
# Exits with 1 if a line differs.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund --ignore-scripts grpc-web@2.1.1 typescript@5.9.3

cat >call.ts <<'TS'
import { GrpcWebClientBase, MethodDescriptor } from "grpc-web";
export const call = (method: MethodDescriptor<string, string>): Promise<string> =>
  new GrpcWebClientBase({ format: "text" }).thenableCall("/a.B/C", "", {}, method);
TS
accepts=no
if node_modules/.bin/tsc --noEmit --strict --target es2022 --module commonjs call.ts; then accepts=yes; fi
kind() { node -p "typeof new (require('grpc-web').GrpcWebClientBase)({ format: 'text' }).$1"; }

expect() {
    printf '%s: %s\n' "$1" "$3"
    [[ $3 == "$2" ]] || { echo "it was $2" >&2; exit 1; }
}
expect "tsc accepts thenableCall" yes "$accepts"
expect "thenableCall is" undefined "$(kind thenableCall)"
expect "unaryCall is" function "$(kind unaryCall)"
