#!/usr/bin/env bash
# Whether the service takes the settings that the chart writes: accepted.sh BINARY
set -euo pipefail
cd "$(dirname "$0")/../.."

chart=helm/user-service
settings=$(mktemp)
trap 'rm -f "$settings"' EXIT
for values in "$chart"/ci/*-values.yaml; do
    bin/helm template release $chart --show-only templates/configmap.yaml --values "$values" |
        .venv/bin/python -c 'import sys, yaml; print(yaml.safe_load(sys.stdin)["data"]["user-service.toml"])' >"$settings"
    "$1" config --config "$settings" >/dev/null || { echo "chart: the service refuses what $values gives" >&2; exit 1; }
done
