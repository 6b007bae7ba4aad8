#!/usr/bin/env bash
# Prints the covered lines of each of the project's sources, tests left out, after a run of what was built with --coverage.
#
#   tests/cov.sh BUILD_DIR
set -euo pipefail

build=${1:?usage: tests/cov.sh BUILD_DIR}

find "$build" -name '*.gcno' ! -path '*/narrow/*' ! -path '*/tests/*' | sort | xargs gcov -nr 2>/dev/null | awk -F "[':% ]+" '
    /^File/ { file = $2 }
    /^Lines/ && file ~ /\.c$/ { printf "%6.1f %% of %4d  %s\n", $3, $5, file; lines += $5; hits += $3 * $5 / 100 }
    /^Lines/ { file = "" }
    END { if (lines) printf "%6.1f %% of %4d  all\n", 100 * hits / lines, lines }'
