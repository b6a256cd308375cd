#!/bin/sh
# Runs an instrumented binary for half a minute under every kind of call, and merges what
# it counted into a profile: train.sh SERVER LOAD PROFILE
set -eu
server=$1 load=$2 profile=$3
users=20000
profdata=$(rustc --print target-libdir)/../bin/llvm-profdata
[ -x "$profdata" ] || { echo "please run: rustup component add llvm-tools" >&2; exit 1; }

work=$(mktemp -d)
pid=
stop() {
    [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
    rm -rf "$work"
}
trap stop EXIT
export LLVM_PROFILE_FILE="$work/counts/%p.profraw"

# Everything on, as in service. Nothing listens on port 9.
mkfifo "$work/log"
serve() { # options
    rm -f "$work/address"
    sed -u -n -e 's/.*"grpc_addr":"\([0-9.:]*\)".*/\1/w '"$work/address" <"$work/log" &
    OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:9 OTEL_TRACES_SAMPLER=parentbased_traceidratio \
        OTEL_TRACES_SAMPLER_ARG=0.01 "$server" --grpc-addr 127.0.0.1:0 --admin-addr 127.0.0.1:0 \
        --store-url "sqlite:$work/users.db" "$@" 2>"$work/log" &
    pid=$!
    address=
    until [ -n "$address" ]; do
        kill -0 "$pid" 2>/dev/null || { echo "the instrumented binary has ended" >&2; exit 1; }
        sleep 0.1
        address=$(cat "$work/address" 2>/dev/null || true)
    done
}
drain() {
    kill "$pid"
    wait "$pid"
    pid=
}
some_users() {
    awk -v users="$users" 'BEGIN { for (n = 0; n < users; n++)
        printf "{\"id\":\"u-%09d\",\"name\":\"User Number %d\",\"email\":\"user.%d@example.com\",\"age\":%d}\n", n, n, n, n % 100 }'
}

load() {
    "$load" "$address" "$@" >/dev/null
}
closed() { # kind, connections, streams, seconds, options
    kind=$1 connections=$2 streams=$3 seconds=$4
    shift 4
    load closed --kind "$kind" --connections "$connections" --streams "$streams" --seconds "$seconds" --users "$users" "$@"
}

serve
some_users | "$server" import --server "$address"
# Watches go on while everything else changes users.
load watch --watches 10 --seconds 20 &
watching=$!
closed get 10 20 4
closed get 50 1 4
closed get 1 1 1
closed get-by-email 10 20 1
closed batch 4 4 2
load list --users "$users"
closed create 10 20 3 --first 1000000
closed create 50 1 2 --first 2000000
closed update 10 20 2
load closed --kind delete --first 1000000 --calls 5000
"$server" smoke "$address" >/dev/null
closed article-get 10 20 2
closed article-create 10 20 1 --first 3000000
# Errors: not there, there already, not valid, and more than are let in.
closed absent 10 20 1 --tolerant
closed create 10 20 1 --tolerant
closed invalid 10 20 1 --tolerant
closed create 40 80 2 --first 4000000 --tolerant
wait "$watching"
"$server" export --server "$address" >/dev/null
"$server" check "$address"
drain

# The same store by TLS: what the service encrypts, the import decrypts.
(
    cd "$work"
    key='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
    echo subjectAltName=IP:127.0.0.1 >names
    # shellcheck disable=SC2086
    openssl req -x509 $key -keyout authority.key -out authority.pem -subj /CN=authority -days 2
    # shellcheck disable=SC2086
    openssl req $key -keyout server.key -out server.csr -subj /CN=server
    openssl x509 -req -in server.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 -extfile names -out server.pem
) 2>"$work/openssl" || { cat "$work/openssl" >&2; exit 1; }
serve --tls-cert-file "$work/server.pem" --tls-key-file "$work/server.key"
some_users | "$server" import --server "$address" --tls-ca "$work/authority.pem"
"$server" export --server "$address" --tls-ca "$work/authority.pem" >/dev/null
drain

"$profdata" merge -o "$work/profile" "$work/counts"
most=$("$profdata" show "$work/profile" | awk -F ': ' '/^Maximum function count/ { print $2 }')
if [ "${most:-0}" -lt 100000 ]; then
    "$profdata" show "$work/profile" >&2
    echo "the training counted next to nothing" >&2
    exit 1
fi
mv "$work/profile" "$profile"
