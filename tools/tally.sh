#!/usr/bin/env bash
# Passes the output of `cargo test` through and ends it with the sum of all its
# summaries. Fails where a test failed, and where none ran at all.
set -euo pipefail
exec awk '
    { print; fflush() }
    /^test result: / {
        for (i = 2; i <= NF; i++) {
            if ($i == "passed;") passed += $(i - 1)
            if ($i == "failed;") failed += $(i - 1)
        }
    }
    END { printf "%d passed, %d failed\n", passed, failed; exit failed > 0 || passed == 0 }
'
