#!/usr/bin/env bash
# Runs fuzz targets, one per core at a time, and says what each of them found.
#
#   tests/fuzz/run.sh BUILD_DIR SECONDS|merge TARGET...
#
# A target starts from its corpus in the tree and from what it found before, in BUILD_DIR/found; an input that breaks a
# property stays in BUILD_DIR/broken, and the exit status is 1. `merge` takes what was found into the tree: named files
# of a corpus stay, those that libFuzzer named by their hash are chosen anew: few that reach together what any input
# reaches, and of these the smaller ones when there are too many.
set -euo pipefail

corpus_files=60 # more than these is no seed any more

[ $# -ge 3 ] || { echo "usage: tests/fuzz/run.sh BUILD_DIR SECONDS|merge TARGET..." >&2 && exit 2; }
build=$1 what=$2
shift 2

export ASAN_OPTIONS=detect_stack_use_after_return=1:${ASAN_OPTIONS:-}
export UBSAN_OPTIONS=print_stacktrace=1:${UBSAN_OPTIONS:-}

program() {
    echo "$build/tests/fuzz/fuzz_$1"
}

# summary TARGET: from the lines "#RUNS EVENT cov: EDGES ..." of its log
summary() {
    awk -v target="$1" '
        /^#[0-9]/ { runs = substr($1, 2) }
        $2 == "INITED" || $2 == "NEW" { latest = runs }
        $2 == "NEW" { found++ }
        /^#[0-9]/ && $3 == "cov:" { edges = $4 }
        $1 == "stat::average_exec_per_sec:" { pace = $2 }
        END { printf "%-10s %9d runs, %6d/s, %5d edges, %4d new inputs, none in the last %d runs\n",
                     target, runs, pace, edges, found, runs - latest }' "$build/log/$1"
}

fuzz_one() {
    local found=$build/found/$1 dict=tests/fuzz/$1.dict status=0 options=()
    [ ! -e "$dict" ] || options+=(-dict="$dict")
    mkdir -p "$found" "$build/broken" "$build/log"
    "$(program "$1")" -max_total_time="$what" -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
        -artifact_prefix="$build/broken/$1-" "${options[@]}" "$found" "tests/fuzz/corpus/$1" >"$build/log/$1" 2>&1 </dev/null || status=$?
    summary "$1"
    [ $status -ne 0 ] || return 0
    echo "$1 FAILED, in full in $build/log/$1:"
    grep -E 'does not hold|ERROR|runtime error|^    #[0-9] |SUMMARY' "$build/log/$1" | head -n 20 || true
    sed -n "s|^artifact_prefix.*Test unit written to |again: $(program "$1") |p" "$build/log/$1"
    return 1
}

# hashed FOLDER: the files that libFuzzer named, largest first
hashed() {
    find "$1" -regextype egrep -regex '.*/[0-9a-f]{40}' -printf '%s %p\n' | sort -rn | cut -d' ' -f2
}

merge_one() {
    local tree=tests/fuzz/corpus/$1 found=$build/found/$1 old=$build/merge/$1 before count
    rm -rf "$old" && mkdir -p "$old" "$found"
    before=$(find "$tree" -type f | wc -l)
    hashed "$tree" | xargs -r mv -t "$old"
    # By edges alone: how often each was taken would keep many more.
    "$(program "$1")" -set_cover_merge=1 -use_counters=0 -artifact_prefix="$old-" "$tree" "$old" "$found" >"$old.log" 2>&1
    count=$(find "$tree" -type f | wc -l)
    [ "$count" -le $corpus_files ] || hashed "$tree" | head -n $((count - corpus_files)) | xargs -r rm
    echo "$1: $before files before, $(find "$tree" -type f | wc -l) now"
}

failed=0
for target in "$@"; do
    if [ "$what" = merge ]; then
        merge_one "$target"
        continue
    fi
    while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n || failed=1; done
    fuzz_one "$target" &
done
while [ -n "$(jobs -p)" ]; do wait -n || failed=1; done
exit $failed
