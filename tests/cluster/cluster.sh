#!/usr/bin/env bash
# Runs a command beside a real Kubernetes of one node, and leaves nothing behind:
# cluster.sh [-i IMAGE.tar].. [-f OBJECTS.yaml].. COMMAND [ARGUMENT]..
#
# etcd, API server, controllers, scheduler, kubelet, kube-proxy, CoreDNS, containerd
# and the command have namespaces of their own (mounts, processes, network, IPC, host
# name, cgroups) and one tmpfs. With the first process of the namespace the kernel
# ends all of them, and mounts, interfaces, rules and sysctls go with their namespaces
# (node.sh). Outside of them there are only a cgroup in each hierarchy and an empty
# folder, which are removed here.
#
# The command finds KUBECONFIG set, kubectl and the tools of bin/ in its PATH, and
# names of the cluster resolved. It reaches no other network, and has a /run, a
# /var/lib and a /var/log of its own.
#
#   CLUSTER_LOGS   a folder to keep the logs of pods and components in
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
die() { echo "cluster: $*" >&2; exit 1; }

images=() objects=()
while getopts i:f: option; do
    case $option in
    i) images+=("$(realpath "$OPTARG")") ;;
    f) objects+=("$(realpath "$OPTARG")") ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
(($#)) || die "a command is missing: cluster.sh [-i IMAGE.tar].. [-f OBJECTS.yaml].. COMMAND [ARGUMENT].."
"$here/able.sh"
made=$("$here/build.sh")

# What was left by one that was killed with SIGKILL.
name=user-service-cluster
for old in $(find /sys/fs/cgroup -type d -name "$name.*" -prune) "${TMPDIR:-/tmp}/$name".*; do
    pid=${old##*/"$name".}
    [[ -d /proc/${pid%%.*} ]] || find "$old" -depth -type d -exec rmdir {} + 2>/dev/null || true
done

folder=$(mktemp --directory "${TMPDIR:-/tmp}/$name.$$.XXXXXX")
cgroups=() first=
# shellcheck disable=SC2329 # a trap calls it
tidy() {
    trap '' INT TERM HUP
    if [[ -n $first ]]; then
        kill -KILL "$first" 2>/dev/null || true # unshare takes the others along
        wait "$first" 2>/dev/null || true
    fi
    for cgroup in "${cgroups[@]}"; do
        for _ in {1..50}; do
            find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || true
            [[ -d $cgroup ]] || break
            sleep 0.1
        done
    done
    rmdir "$folder" || echo "cluster: $folder is left" >&2
}
trap tidy EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

while IFS=: read -r _ controllers path; do
    own=/sys/fs/cgroup/${controllers#name=}${path%/}
    [[ -n $controllers && -d $own ]] || continue
    mkdir "$own/${folder##*/}"
    cgroups+=("$own/${folder##*/}")
    if [[ ,$controllers, == *,cpuset,* ]]; then
        cat "$own/cpuset.cpus" >"$own/${folder##*/}/cpuset.cpus"
        cat "$own/cpuset.mems" >"$own/${folder##*/}/cpuset.mems"
    fi
done </proc/self/cgroup

export CLUSTER_LOGS=${CLUSTER_LOGS:-} CLUSTER_FOLDER=$folder CLUSTER_MADE=$made
export CLUSTER_CGROUPS="${cgroups[*]}" CLUSTER_IMAGES="$made/pause.tar ${images[*]}" CLUSTER_OBJECTS="${objects[*]}"
exec 3<&0
(
    for cgroup in "${cgroups[@]}"; do echo "$BASHPID" >"$cgroup/cgroup.procs"; done
    exec setpriv --pdeathsig KILL unshare --mount --pid --cgroup --net --ipc --uts --fork --kill-child \
        --mount-proc --propagation private bash "$here/node.sh" "$@" <&3
) &
first=$!
code=0
wait "$first" || code=$?
first=
exit "$code"
