#!/usr/bin/env bash
# Names the files that define what the chart makes for others: the Prometheus operator,
# the Gateway API and cert-manager. They are parts of Go modules, so Go's checksum database vouches
# for them.
set -euo pipefail

module() { go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p'; }
operator=$(module github.com/prometheus-operator/prometheus-operator@v0.85.0)
gateway=$(module sigs.k8s.io/gateway-api@v1.6.3)
certificates=$(module github.com/cert-manager/cert-manager@v1.21.2)
ls "$operator"/example/prometheus-operator-crd/*_{servicemonitors,podmonitors,prometheusrules}.yaml \
    "$gateway"/config/crd/standard/*_{grpcroutes,backendtlspolicies}.yaml \
    "$certificates"/deploy/crds/cert-manager.io_certificates.yaml
