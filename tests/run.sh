#!/usr/bin/env bash
# Runs tests that are built and sums them up.
#
#   tests/run.sh BUILD_DIR [TEST...] [-- PYTEST_ARGS...]
#
# A TEST below BUILD_DIR/tests/unit is a cmocka program, one below BUILD_DIR/tests/fuzz (which replays its corpus) or
# BUILD_DIR/tests/torture a program that is right when it exits 0; any other is given to pytest. Unit tests, then such
# programs, then pytest are stages; the first stage in which something fails is the last that runs.
set -euo pipefail

build=${1:?usage: tests/run.sh BUILD_DIR [TEST...] [-- PYTEST_ARGS...]}
shift
unit=() programs=() e2e=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    case $1 in
    "$build"/tests/unit/*) unit+=("$1") ;;
    "$build"/tests/fuzz/* | "$build"/tests/torture/*) programs+=("$1") ;;
    *) e2e+=("$1") ;;
    esac
    shift
done
[ $# -eq 0 ] || shift

export CRIER="$PWD/$build/crier" CRIER_BUILD="$PWD/$build"
export PYTHONDONTWRITEBYTECODE=1 # nothing is written into the tree
export NODE_PATH=/usr/share/nodejs${NODE_PATH:+:$NODE_PATH} # for a node that is not the distribution's
export UBSAN_OPTIONS=print_stacktrace=1:${UBSAN_OPTIONS:-}
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1:${TSAN_OPTIONS:-}

# The sanitizers of gcc 12 do not always find room for their shadow among addresses with 32 random bits.
launch=(timeout --foreground --kill-after=10)
case $build in
*/asan | */tsan) if setarch -R true 2>/dev/null; then launch=(setarch -R "${launch[@]}"); fi ;;
esac
limit=300
[ -z "${CRIER_LONG:-}" ] || limit=3600

log=$(mktemp)
trap 'rm -f "$log"' EXIT
passed=0 failed=0 skipped=0

finish() {
    echo "$passed passed, $failed failed$([ "$skipped" -eq 0 ] || echo ", $skipped skipped")"
    [ "$failed" -eq 0 ]
    exit
}

# number WORD: the number before WORD in pytest's last line, or 0
number() {
    tail -n 1 "$log" | grep -oE "[0-9]+ $1" | grep -oE '[0-9]+' || echo 0
}

# total WORD: the sum of "[  WORD  ] N test(s)" in the output of a cmocka program, which may have several groups
total() {
    awk -v word="$1" '$1 == "[" && $2 == word && $4 ~ /^[0-9]+$/ && /test\(s\)/ { n += $4 } END { print n + 0 }' "$log"
}

# run_program NAME PROGRAM: its output is shown only when it fails; leaves its exit status in $status
run_program() {
    local start=${EPOCHREALTIME/[.,]/}
    status=0
    "${launch[@]}" $limit "$2" >"$log" 2>&1 </dev/null || status=$?
    printf '%-6s %s (%d ms)\n' "$([ $status -eq 0 ] && echo ok || echo FAILED)" "$1" $(((${EPOCHREALTIME/[.,]/} - start) / 1000))
    [ $status -eq 0 ] || sed 's/^/    /' "$log"
    [ $status -ne 124 ] || echo "    stopped: not done after $limit s"
    [ $status -lt 125 ] || echo "    exit status $status"
}

for program in "${unit[@]}"; do
    run_program "${program#"$build"/tests/}" "$program"
    good=$(total PASSED) bad=$(total FAILED) skip=$(total SKIPPED)
    [ $status -eq 0 ] || [ "$bad" -gt 0 ] || bad=1 # it crashed
    passed=$((passed + good)) failed=$((failed + bad)) skipped=$((skipped + skip))
done
[ $failed -eq 0 ] || finish

for program in "${programs[@]}"; do
    run_program "${program#"$build"/tests/}" "$program"
    if [ $status -eq 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
done
[ $failed -eq 0 ] || finish

if [ ${#e2e[@]} -gt 0 ]; then
    status=0
    "${launch[@]}" $((limit * 4)) /usr/bin/python3 -m pytest -p no:cacheprovider "${e2e[@]}" "$@" </dev/null | tee "$log" || status=$?
    passed=$((passed + $(number passed))) skipped=$((skipped + $(number skipped)))
    bad=$(($(number failed) + $(number error)))
    [ $status -eq 0 ] || [ $bad -gt 0 ] || bad=1
    failed=$((failed + bad))
fi
finish
