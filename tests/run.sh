#!/usr/bin/env bash
# Runs tests that are built and sums them up.
#
#   tests/run.sh [--plan] BUILD_DIR [TEST...] [-- PYTEST_ARGS...]
#
# A TEST below BUILD_DIR/tests/unit is a cmocka program, one below BUILD_DIR/tests/fuzz (which replays its corpus) or
# BUILD_DIR/tests/torture a program that is right when it exits 0, and skipped, for the reason in its last line, when it
# exits 77; any other is given to pytest. Unit tests, then such programs, then pytest are stages; the first stage in which
# something fails is the last that runs. --plan only says which stages there are and how long they take; NARROWED in the
# environment names the stages of which only a part runs.
set -euo pipefail

# Seconds on two idle cores; at the end of a run the last line has those that it took.
#   build     building  unit  programs  pytest
estimates='
    release         40     8        55     350
    asan            80    30       180       ?
    tsan            70    30       400       ?
'

plan=
[ "${1:-}" != --plan ] || { plan=yes && shift; }
build=${1:?usage: tests/run.sh [--plan] BUILD_DIR [TEST...] [-- PYTEST_ARGS...]}
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

# stage NAME COLUMN COUNT: what --plan says of a stage, in $said and $total; "?" and a stage in NARROWED have no time
stage() {
    local seconds
    [ "$3" -gt 0 ] || return 0
    seconds=$(awk -v build="${build##*/}" -v column="$2" '$1 == build { print $column }' <<<"$estimates")
    case " ${NARROWED:-} " in *" $1 "*) seconds='part of it' ;; esac
    [ -z "${CRIER_LONG:-}" ] || [ "$1" = build ] || seconds='long'
    case $seconds in
    '' | '?') complete='' said="$said, $1" ;;
    *[!0-9]*) complete='' said="$said, $1 ($seconds)" ;;
    *) total=$((total + seconds)) said="$said, $1 $seconds s" ;;
    esac
}

if [ -n "$plan" ]; then
    said='' total=0 complete=yes
    stage build 2 1
    stage unit 3 ${#unit[@]}
    stage programs 4 ${#programs[@]}
    stage pytest 5 ${#e2e[@]}
    echo "test: ${said#, }${complete:+; about $(((total + 59) / 60)) minutes on two idle cores}"
    exit
fi

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
trap 'rm -f "$log" "$log.beside"' EXIT
passed=0 failed=0 skipped=0
took='' since=$SECONDS

# stage_ends NAME COUNT
stage_ends() {
    [ "$2" -eq 0 ] || took="$took, $1 $((SECONDS - since)) s"
    since=$SECONDS
}

finish() {
    echo "$passed passed, $failed failed$([ "$skipped" -eq 0 ] || echo ", $skipped skipped") in $SECONDS s (${took#, })"
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

word() {
    case $1 in 0) echo ok ;; 77) echo skip ;; *) echo FAILED ;; esac
}

# run_program NAME PROGRAM: its output is shown only when it fails; leaves its exit status in $status
run_program() {
    local start=${EPOCHREALTIME/[.,]/}
    status=0
    "${launch[@]}" $limit "$2" >"$log" 2>&1 </dev/null || status=$?
    printf '%-6s %s (%d ms)\n' "$(word $status)" "$1" $(((${EPOCHREALTIME/[.,]/} - start) / 1000))
    if [ $status -eq 77 ]; then
        echo "       skipped: $(tail -n 1 "$log")"
        return
    fi
    [ $status -eq 0 ] || sed 's/^/    /' "$log"
    [ $status -ne 124 ] || echo "    stopped: not done after $limit s"
    [ $status -lt 125 ] || echo "    exit status $status"
}

for program in "${unit[@]}"; do
    run_program "${program#"$build"/tests/}" "$program"
    good=$(total PASSED) bad=$(total FAILED) skip=$(total SKIPPED)
    [ $status -eq 0 ] || [ "$bad" -gt 0 ] || bad=1 # it crashed
    [ "$skip" -eq 0 ] || sed -n 's/^\[  REASON  \] /       skipped: /p' "$log"
    passed=$((passed + good)) failed=$((failed + bad)) skipped=$((skipped + skip))
done
stage_ends unit ${#unit[@]}
[ $failed -eq 0 ] || finish

for program in "${programs[@]}"; do
    run_program "${program#"$build"/tests/}" "$program"
    case $status in 0) passed=$((passed + 1)) ;; 77) skipped=$((skipped + 1)) ;; *) failed=$((failed + 1)) ;; esac
done
stage_ends programs ${#programs[@]}
[ $failed -eq 0 ] || finish

# run_pytest PATH...: each test has a limit of its own; this one is for a pytest that hangs
run_pytest() {
    PYTHONPATH=tests/lib "${launch[@]}" $((limit * 24)) /usr/bin/python3 -m pytest -p no:cacheprovider -p file_times -rfEs \
        --durations=15 --durations-min=1 "$@" </dev/null
}

# sum_up_pytest STATUS: 5 is that no test was selected
sum_up_pytest() {
    local bad
    bad=$(($(number failed) + $(number error)))
    passed=$((passed + $(number passed))) skipped=$((skipped + $(number skipped)))
    case $1 in 0 | 5) ;; *) [ $bad -gt 0 ] || bad=1 ;; esac
    failed=$((failed + bad))
}

if [ ${#e2e[@]} -gt 0 ]; then
    # The conformance table uses one CPU all the time, and the other tests wait most of the time: both run at once.
    table=() others=()
    for path in "${e2e[@]}"; do
        case $path in tests/conform | tests/conform/*) table+=("$path") ;; *) others+=("$path") ;; esac
    done
    [ ${#others[@]} -gt 0 ] || { others=("${table[@]}") && table=(); }
    status=0 beside=0
    if [ ${#table[@]} -gt 0 ]; then
        # bash has a command in the background ignore an interrupt from the keyboard, and this one is not to.
        (launch=(env "--default-signal=INT,QUIT" "${launch[@]}") && run_pytest "${table[@]}" "$@") >"$log.beside" 2>&1 &
        beside=$!
    fi
    run_pytest "${others[@]}" "$@" | tee "$log" || status=$?
    sum_up_pytest $status
    if [ ${#table[@]} -gt 0 ]; then
        second=0
        wait $beside || second=$?
        tee "$log" <"$log.beside"
        sum_up_pytest $second
        [ $status -ne 5 ] || status=$second
    fi
    [ $status -ne 5 ] || failed=$((failed + 1)) # no test at all was selected
fi
stage_ends pytest ${#e2e[@]}
finish
