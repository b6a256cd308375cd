#!/usr/bin/env bash
# Builds what the measuring runs use into target/bench: the peers, the load
# client, the foreign client that checks answers, what draws plots, and our own
# release binary unless BINARY names one.
# CARGO_TARGET_DIR moves all of it. build.sh [ours|rust|nghttpd|go|python|plots]...; default: all.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
out=$target/bench
mkdir -p "$out/bin" "$out/stubs"

# The very file that the image holds: linked to another libc than cargo's default.
build_ours() {
    local arch
    arch=$(dpkg --print-architecture)
    deploy/image/toolchain.sh "$arch"
    deploy/image/build.sh "$arch"
    cp -u "$target/image/$arch/user-service" "$out/bin/"
}

# One package a command: together they would share crate features.
build_rust() {
    local package
    for package in raw-hyper tonic-bare tonic-usual connectrpc-plain load disk; do
        cargo build --manifest-path benches/Cargo.toml --target-dir "$out/cargo" --locked --release -p "$package"
        cp -u "$out/cargo/release/$package" "$out/bin/"
    done
}

# nghttpd serves the bytes of raw-hyper's answer as a file.
build_nghttpd() {
    mkdir -p "$out/htdocs/UserService"
    printf '\0\0\0\0\x28\x0a\x26\x0a\x0cAda Lovelace\x12\x0fada@example.com\x18\x24\x22\x03u-1' \
        >"$out/htdocs/UserService/GetUser"
}

build_python() {
    venv venv benches/peers/python/requirements.txt
    "$out/venv/bin/python" -m grpc_tools.protoc -I proto --python_out="$out/stubs" --grpc_python_out="$out/stubs" \
        user.proto user/v1/user.proto user/v1/user_service.proto
}

build_plots() {
    venv plots benches/requirements.txt
}

venv() { # folder, requirements
    if ! cmp -s "$2" "$out/$1/requirements.txt"; then
        python3 -m venv "$out/$1"
        "$out/$1/bin/pip" install --quiet --disable-pip-version-check --requirement "$2"
        cp "$2" "$out/$1/"
    fi
}

# Needs protoc, which comes with the Python packages.
build_go() {
    build_python
    local mapping=Muser.proto=peer/pb
    cd benches/peers/go
    go build -o "$out/bin/" google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
    mkdir -p pb
    PATH=$out/bin:$PATH "$out/venv/bin/python" -m grpc_tools.protoc -I ../../../proto \
        --go_out=pb --go_opt=$mapping,module=peer/pb --go-grpc_out=pb --go-grpc_opt=$mapping,module=peer/pb user.proto
    local program
    for program in plain middleware connect load; do
        CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags '-s -w' -o "$out/bin/go-$program" "./$program"
    done
    cd - > /dev/null
}

[[ -z ${BINARY:-} ]] && ours=ours || ours=
for part in "${@:-$ours rust nghttpd go python plots}"; do
    for name in $part; do
        "build_$name"
    done
done
