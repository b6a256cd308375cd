#!/usr/bin/env bash
# Whether this machine can run the cluster; otherwise says what it lacks.
set -euo pipefail

lacks() {
    printf 'cluster: %s\n' "$@" "\`make test\` runs all tests but those of the cluster" >&2
    exit 1
}
((EUID == 0)) || lacks "it takes root to start a Kubernetes: namespaces, mounts and cgroups"
[[ $(uname -m) == x86_64 ]] || lacks "the image that it runs is for x86_64"
[[ $(stat --file-system --format %T /sys/fs/cgroup) == tmpfs ]] ||
    lacks "it takes cgroup v1 below /sys/fs/cgroup: systemd.unified_cgroup_hierarchy=0 on the kernel's command line, or a container that has it"
