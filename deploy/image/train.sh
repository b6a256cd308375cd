#!/bin/sh
# Runs an instrumented binary for some 40 s under every kind of call, and merges what it
# counted into a profile: train.sh SERVER LOAD PROFILE
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
some_users() { # the first number
    awk -v first="$1" -v users="$users" 'BEGIN { for (n = first; n < first + users; n++)
        printf "{\"id\":\"u-%09d\",\"name\":\"User Number %d\",\"email\":\"user.%d@example.com\",\"age\":%d}\n", n, n, n, n % 100 }'
}

load() {
    # shellcheck disable=SC2086
    "$load" "$address" $shown "$@" >/dev/null
}
closed() { # kind, connections, streams, seconds, options
    kind=$1 connections=$2 streams=$3 seconds=$4
    shift 4
    load closed --kind "$kind" --connections "$connections" --streams "$streams" --seconds "$seconds" --users "$users" "$@"
}
web() { # kind, protocol, options
    kind=$1 protocol=$2
    shift 2
    load web --kind "$kind" --protocol "$protocol" --seconds 1 --users "$users" "$@"
}

shown=
serve
some_users 0 | "$server" import --server "$address"
# Watches go on while everything else changes users.
load watch --watches 10 --seconds 20 &
watching=$!
closed get 10 20 4
closed get 50 1 4
closed get 1 1 1
closed get-by-email 10 20 1
# With deadlines.
load open --kind get --users "$users" --rate 4000 --seconds 2
closed batch 4 4 1
load list --users "$users"
closed create 10 20 2 --first 1000000
closed create 50 1 1 --first 2000000
closed update 10 20 1
load closed --kind delete --first 1000000 --calls 2000
"$server" smoke "$address" >/dev/null
closed article-get 10 20 1
closed article-create 10 20 1 --first 3000000
for protocol in connect connect-json grpc-web; do
    web get "$protocol"
    web get "$protocol" --http1
done
web create connect-json --first 4000000
web absent connect-json
# Errors: not there, there already, not valid, and more than are let in.
closed absent 10 20 1 --tolerant
closed create 10 20 1 --tolerant
closed invalid 10 20 1 --tolerant
closed create 40 80 2 --first 5000000 --tolerant
wait "$watching"
"$server" export --server "$address" >/dev/null
"$server" check "$address"
drain

# The same store by TLS and with tokens: what the service encrypts, the import decrypts.
base64url() {
    openssl base64 -A | tr '+/' '-_' | tr -d =
}
(
    cd "$work"
    key='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
    echo subjectAltName=IP:127.0.0.1 >names
    # shellcheck disable=SC2086
    openssl req -x509 $key -keyout authority.key -out authority.pem -subj /CN=authority -days 2
    # shellcheck disable=SC2086
    openssl req $key -keyout server.key -out server.csr -subj /CN=server
    openssl x509 -req -in server.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 -extfile names -out server.pem

    # The issuer of a token, which is for a day.
    openssl genpkey -algorithm ed25519 -out issuer.key
    public=$(openssl pkey -in issuer.key -pubout -outform DER | tail -c 32 | base64url)
    echo "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"use\":\"sig\",\"kid\":\"1\",\"x\":\"$public\"}]}" >keys.json
    claims='"iss":"https://issuer.invalid","aud":"users","sub":"training","realm_access":{"roles":["other","writer"]}'
    head=$(printf '{"alg":"EdDSA","kid":"1"}' | base64url)
    body=$(printf '{%s,"exp":%s}' "$claims" "$(($(date +%s) + 86400))" | base64url)
    printf '%s.%s' "$head" "$body" >unsigned
    printf '%s.%s' "$(cat unsigned)" "$(openssl pkeyutl -sign -rawin -inkey issuer.key -in unsigned | base64url)" >token
    cat >policy.toml <<'END'
[roles.writer]
methods = ["user.v1.UserService/*"]

[[grants]]
claims = { "realm_access.roles" = ["writer"] }
roles = ["writer"]
END
) 2>"$work/openssl" || { cat "$work/openssl" >&2; exit 1; }
serve --tls-cert-file "$work/server.pem" --tls-key-file "$work/server.key" --auth-policy-file "$work/policy.toml" \
    --auth-jwks-file "$work/keys.json" --auth-issuer https://issuer.invalid --auth-audience users
shown="--tls-ca $work/authority.pem"
closed get 10 20 1 --tolerant
shown="$shown --token-file $work/token"
closed get 10 20 2
closed get 50 1 1
closed create 10 20 1 --first 6000000
# shellcheck disable=SC2086
some_users 7000000 | "$server" import --server "$address" $shown
# shellcheck disable=SC2086
"$server" export --server "$address" $shown >/dev/null
drain

"$profdata" merge -o "$work/profile" "$work/counts"
most=$("$profdata" show "$work/profile" | awk -F ': ' '/^Maximum function count/ { print $2 }')
if [ "${most:-0}" -lt 100000 ]; then
    "$profdata" show "$work/profile" >&2
    echo "the training counted next to nothing" >&2
    exit 1
fi
mv "$work/profile" "$profile"
