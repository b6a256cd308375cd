#!/usr/bin/env bash
# Everything the chart must pass. It asks no cluster and, once the tools are
# there, no network.
set -euo pipefail
cd "$(dirname "$0")/../.."

chart=helm/user-service
files=("$chart"/ci/*-values.yaml deploy/*/values.yaml)
python=.venv/bin/python
schemas=target/chart/schemas
oldest=1.30.0 # as kubeVersion in Chart.yaml
newest=1.37.0

step() { printf '%s\n' "$*" >&2; }
fail() { printf 'chart: %s\n' "$*" >&2; exit 1; }

step "the versions agree"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
grep -qx "appVersion: \"$version\"" $chart/Chart.yaml || fail "appVersion is not $version, as in Cargo.toml"
grep -q "image: localhost/user-service:$version\$" $chart/Chart.yaml || fail "artifacthub.io/images does not name $version"
grep -qx "kubeVersion: \">=$oldest-0\"" $chart/Chart.yaml || fail "kubeVersion is not what is checked here, $oldest"

step "schema and README are what values.yaml says"
$python tools/chart/generate.py --check $chart

step "helm lint"
for values in "${files[@]}"; do
    bin/helm lint --quiet --strict $chart --values "$values"
done

step "a Kubernetes without preStop.sleep is refused"
refused=$(bin/helm template release $chart --kube-version 1.29.0 2>&1) && fail "Kubernetes 1.29 is accepted"
[[ $refused == *"incompatible with Kubernetes"* ]] || fail "Kubernetes 1.29 is refused for another reason: $refused"

step "helm-unittest"
bin/helm-unittest --strict $chart
# The schema stands before the template; without it the template must refuse as well.
bin/helm-unittest --strict --skip-schema-validation --file 'tests/unguarded/*_test.yaml' $chart

step "in a parent chart, under an alias too"
$python tests/chart/parents.py

step "kubeconform, Kubernetes $oldest and $newest"
if [[ ! $schemas/.made -nt tools/chart/check.sh || ! $schemas/.made -nt tools/chart/crds.sh ]]; then
    rm -rf $schemas
    tools/chart/crds.sh | xargs $python tools/chart/schemas.py $schemas $oldest $newest --
    touch $schemas/.made
fi
# Each file as it is, and with objects that it may leave out.
more=monitor.enabled=true,monitor.kind=ServiceMonitor,networkPolicy.enabled=true
more+=,tls.enabled=true,tls.certificate.enabled=true,tls.certificate.issuerRef.name=internal,tls.certificate.duration=24h
for values in "${files[@]}"; do
    for kubernetes in $oldest $newest; do
        for set in "" $more; do
            bin/helm template release $chart --namespace users --kube-version "$kubernetes" --values "$values" --set "$set" |
                bin/kubeconform -strict -kubernetes-version "$kubernetes" \
                    -schema-location "$schemas/kubernetes/$kubernetes/{{ .ResourceKind }}{{ .KindSuffix }}.json" \
                    -schema-location "$schemas/custom/{{ .Group }}/{{ .ResourceKind }}_{{ .ResourceAPIVersion }}.json" ||
                fail "$values with ${set:-nothing more} is not valid on Kubernetes $kubernetes"
        done
    done
done
step "the chart passes"
