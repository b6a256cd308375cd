#!/usr/bin/env bash
# Whether the service takes the settings that the chart gives it: accepted.sh BINARY
set -euo pipefail
cd "$(dirname "$0")/../.."

chart=helm/user-service
for values in "$chart"/ci/*-values.yaml deploy/*/values.yaml; do
    settings=$(bin/helm template release $chart --values "$values" | .venv/bin/python tools/chart/settings.py)
    mapfile -t settings <<<"$settings"
    env "${settings[@]}" "$1" config >/dev/null || { echo "chart: the service refuses what $values gives" >&2; exit 1; }
done
