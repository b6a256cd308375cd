#!/usr/bin/env bash
# Compiles what the cluster is made of, and prints the folder where it is:
# Kubernetes, etcd, CoreDNS and the pause program, at the versions of go.mod. go.sum
# vouches for them. The folder is outside of the checkout, since this takes many
# minutes, and is named after what goes into it: nothing is compiled twice.
set -euo pipefail
cd "$(dirname "$0")"

inputs() {
    go version
    cat build.sh
    find . \( -name '*.go' -o -name 'go.*' \) -print0 | sort -z | xargs -0 sha256sum
}
key=$(inputs | sha256sum)
kept=${XDG_CACHE_HOME:-$HOME/.cache}/user-service-cluster
made=$kept/${key:0:16}
mkdir -p "$kept"
exec 9>"$kept/lock"
flock 9

if [[ ! -e $made/complete ]]; then
    echo "cluster: compiling Kubernetes and what belongs to it: 12 minutes of two cores, once" >&2
    version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
    minor=${version#v1.}
    flags="-s -w"
    for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        flags+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}"
    done
    mkdir -p "$made"
    export CGO_ENABLED=0
    go build -mod=readonly -trimpath -ldflags "$flags" -o "$made/" tool
    (cd coredns && go build -mod=readonly -trimpath -ldflags "-s -w" -o "$made/" .)
    python3 pause/image.py "$made/pause" "$made/pause.tar"
    touch "$made/complete"
    # What nobody has used for a month.
    find "$kept" -mindepth 2 -maxdepth 2 -name complete -mtime +30 -printf '%h\0' | xargs -0r rm -rf
fi
touch "$made/complete"
echo "$made"
