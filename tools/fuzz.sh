#!/usr/bin/env bash
# Fuzzes each target that is named for SECONDS_EACH seconds, and prints a table for
# docs/RELIABILITY.md. An input that fails is kept in fuzz/artifacts/TARGET; its copy in
# fuzz/seeds/TARGET is tried by every `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$(realpath -m "${CARGO_TARGET_DIR:-target}")/tools/bin

# Without a sanitizer: those need a nightly compiler, and no code here is unsafe.
fuzz() { # command, arguments
    "$tools/cargo-fuzz" "$1" --sanitizer none any "${@:2}"
}

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
fuzz build
failed=0
rows=''
for target in "$@"; do
    mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
    outcome='nothing found'
    FUZZ_TARGET=$target fuzz run "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$SECONDS_EACH" -timeout=60 -rss_limit_mb=4096 -print_final_stats=1 -verbosity=0 \
        -artifact_prefix="fuzz/artifacts/$target/" >"$logs/$target" 2>&1 || outcome=FAILED
    if [[ $outcome == FAILED ]]; then
        failed=1
        cat "$logs/$target" >&2
    fi
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$logs/$target")
    rows+="| $target | ${runs:-?} | $(find "fuzz/corpus/$target" -type f | wc -l) | $outcome |"$'\n'
done
echo "| target | inputs in $SECONDS_EACH s | kept for their coverage | outcome |"
echo '|---|--:|--:|---|'
printf '%s' "$rows"
exit $failed
