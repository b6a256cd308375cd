#!/usr/bin/env bash
# The node, as the first process of its namespaces; cluster.sh starts it.
# shellcheck disable=SC2153,SC2329 # cluster.sh sets CLUSTER_MADE; some functions are arguments
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
state=$CLUSTER_FOLDER
address=10.99.0.1 pods=10.88.0.0/24 services=10.96.0.0/16 first_service=10.96.0.1
began=$(date +%s%N)
since() { echo "$((($(date +%s%N) - began) / 1000000)) ms"; }

files() {
    mount -t sysfs sysfs /sys
    mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
    for cgroup in $CLUSTER_CGROUPS; do
        controllers=${cgroup#/sys/fs/cgroup/} controllers=${controllers%%/*}
        mkdir "/sys/fs/cgroup/$controllers"
        case $controllers in
        systemd) mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd ;;
        *) mount -t cgroup -o "$controllers" cgroup "/sys/fs/cgroup/$controllers" ;;
        esac
    done
    mount -t tmpfs -o mode=711 cluster "$state"
    mkdir "$state"/{etcd,pki,containerd,log,cni,lib,work,sysctl,home}
    mount -t tmpfs -o mode=755 run /run
    mkdir /run/netns /run/lock
    mount -t tmpfs -o mode=755 log /var/log
    mount -t overlay -o "lowerdir=/var/lib,upperdir=$state/lib,workdir=$state/work" overlay /var/lib
    # The kubelet insists on settings of the whole machine: it finds, and writes, copies.
    local key value copy
    while read -r key value; do
        copy=$state/sysctl/${key//\//_}
        echo "$value" >"$copy"
        [[ ! -e /proc/sys/$key ]] || mount --bind "$copy" "/proc/sys/$key"
    done <<'END'
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
END
    mount --make-rshared /
}

network() {
    hostname node
    ip link set lo up
    ip link add node0 type bridge
    ip addr add "$address/24" dev node0
    ip link set node0 up
    ip route add default dev node0
    echo 1 >/proc/sys/net/ipv4/ip_forward
    printf 'nameserver %s\nsearch svc.cluster.local\n' "$address" >"$state/resolv.conf"
    mount --bind "$state/resolv.conf" /etc/resolv.conf
}

keys() {
    local token
    token=$(head -c 18 /dev/urandom | base64)
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$state/pki/accounts.key" 2>/dev/null
    openssl pkey -in "$state/pki/accounts.key" -pubout -out "$state/pki/accounts.pub"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3 -subj /CN=kubernetes \
        -addext "subjectAltName=IP:$address,IP:$first_service,DNS:kubernetes.default.svc" \
        -keyout "$state/pki/api.key" -out "$state/pki/api.crt" 2>/dev/null
    echo "$token,admin,admin,system:masters" >"$state/pki/tokens.csv"
    echo "Authorization: Bearer $token" >"$state/pki/header"
    cat >"$KUBECONFIG" <<END
apiVersion: v1
kind: Config
clusters: [{name: tests, cluster: {server: "https://$address:6443", certificate-authority: $state/pki/api.crt}}]
users: [{name: admin, user: {token: "$token"}}]
contexts: [{name: tests, context: {cluster: tests, user: admin}}]
current-context: tests
END
}

settings() {
    cat >"$state/containerd.toml" <<END
version = 2
root = "$state/containerd/root"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$state/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  # Scores can only be raised without CAP_SYS_RESOURCE.
  restrict_oom_score_adj = true
  sandbox_image = "localhost/pause:1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$state/cni"
END
    cat >"$state/cni/10-tests.conflist" <<END
{"cniVersion": "0.4.0", "name": "tests", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "$pods"}]], "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": "/run/cni-ipam"}},
  {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}]}
END
    cat >"$state/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
failCgroupV1: false
oomScoreAdj: 0
maxOpenFiles: $(ulimit -Hn)
evictionHard: {imagefs.available: "1%", nodefs.available: "1%", memory.available: 100Mi}
imageGCHighThresholdPercent: 100
volumePluginDir: $state/plugins
resolvConf: $state/resolv.conf
clusterDNS: [$address]
clusterDomain: cluster.local
END
    cat >"$state/Corefile" <<END
cluster.local in-addr.arpa {
  bind $address
  errors
  ready $address:8181
  kubernetes {
    kubeconfig $KUBECONFIG
    ttl 1
  }
}
. {
  bind $address
  template ANY ANY {
    rcode NXDOMAIN
  }
}
END
}

declare -A parts=()
start() { # NAME COMMAND..: it ends with the namespace
    local name=$1
    shift
    "$@" >"$state/log/$name" 2>&1 </dev/null 3<&- &
    parts[$name]=$!
}

wait_for() { # SECONDS WHAT COMMAND..
    local end=$((SECONDS + $1)) what=$2 name
    shift 2
    until "$@" >/dev/null 2>&1; do
        for name in "${!parts[@]}"; do
            [[ -d /proc/${parts[$name]} ]] || fail "$name has ended"
        done
        ((SECONDS < end)) || fail "not in time: $what"
        sleep 0.1
    done
}

fail() {
    echo "cluster: $* (after $(since))" >&2
    tail --verbose --lines 15 "$state"/log/* | cut --characters -400 >&2
    keep
    exit 125
}

keep() {
    [[ -n $CLUSTER_LOGS ]] || return 0
    mkdir -p "$CLUSTER_LOGS"
    cp -r "$state"/log/. "$CLUSTER_LOGS"
    [[ ! -d /var/log/pods ]] || cp -r /var/log/pods "$CLUSTER_LOGS"
}

# Starting kubectl takes much longer than this.
api() { curl --fail --silent --show-error --cacert "$state/pki/api.crt" --header "@$state/pki/header" "https://$address:6443$1"; }
node_ready() { api /api/v1/nodes/node/status | tr -d ' \n' | grep -q '"type":"Ready","status":"True"'; }

control_plane() {
    start etcd etcd --data-dir "$state/etcd" --unsafe-no-fsync --log-level warn \
        --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
        --listen-peer-urls http://127.0.0.1:2380
    start apiserver kube-apiserver --etcd-servers http://127.0.0.1:2379 --advertise-address "$address" \
        --secure-port 6443 --tls-cert-file "$state/pki/api.crt" --tls-private-key-file "$state/pki/api.key" \
        --token-auth-file "$state/pki/tokens.csv" --authorization-mode RBAC --allow-privileged \
        --service-cluster-ip-range "$services" --kubelet-preferred-address-types InternalIP \
        --service-account-issuer https://kubernetes.default.svc \
        --service-account-key-file "$state/pki/accounts.pub" --service-account-signing-key-file "$state/pki/accounts.key"
    wait_for 120 "the API server is ready" api /readyz
    start controllers kube-controller-manager --kubeconfig "$KUBECONFIG" --flex-volume-plugin-dir "$state/plugins" \
        --leader-elect=false --allocate-node-cidrs=false --kube-api-qps 500 --kube-api-burst 1000 \
        --service-account-private-key-file "$state/pki/accounts.key" --root-ca-file "$state/pki/api.crt"
    start scheduler kube-scheduler --kubeconfig "$KUBECONFIG" --leader-elect=false
}

node() {
    start kubelet kubelet --config "$state/kubelet.yaml" --kubeconfig "$KUBECONFIG" --hostname-override node \
        --node-ip "$address"
    start proxy kube-proxy --kubeconfig "$KUBECONFIG" --hostname-override node --proxy-mode iptables \
        --cluster-cidr "$pods" --oom-score-adj 0 --conntrack-max-per-core 0 --conntrack-min 0 \
        --conntrack-tcp-timeout-established 0 --conntrack-tcp-timeout-close-wait 0
    start coredns coredns -conf "$state/Corefile"
    wait_for 60 "the node is ready" node_ready
    wait_for 60 "pods have an account" api /api/v1/namespaces/default/serviceaccounts/default
    wait_for 60 "CoreDNS is ready" curl --fail --silent "http://$address:8181/ready"
}

export PATH=$CLUSTER_MADE:$root/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH
export KUBECONFIG=$state/kubeconfig KUBECACHEDIR=$state/home/kubectl CLUSTER_NODE=$address
export HELM_CACHE_HOME=$state/home/cache HELM_CONFIG_HOME=$state/home/config HELM_DATA_HOME=$state/home/data
files
network
keys
settings
start containerd containerd -c "$state/containerd.toml"
control_plane
wait_for 60 "containerd answers" ctr version
for image in $CLUSTER_IMAGES; do
    ctr --namespace k8s.io images import "$image" >/dev/null || fail "$image cannot be imported"
done
node
for objects in $CLUSTER_OBJECTS; do
    kubectl apply --server-side --filename "$objects" >/dev/null || fail "$objects is not accepted"
done
echo "cluster: Kubernetes $(kubelet --version | cut -d ' ' -f 2) is ready after $(since)" >&2
code=0
"$@" || code=$?
keep
exit "$code"
