#!/usr/bin/env bash
# Checks the models of the ring with spin, every state of each scene, and that each mutant is caught.
#
#   tests/model/check.sh                      all: `make check-long` does
#   tests/model/check.sh join                 one scene
#   tests/model/check.sh join stale_tail      one of its mutants, with the way to the error
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
megabytes=3000 seconds=600 # of one search, on the CPU: how busy the machine is does not matter

# scene | model | its sizes
scenes='
join    | publish      | -DREADERS=3 -DJOINERS=0 -DDEATH=0 -DFOR_0=2 -DFOR_1=2
gate    | publish      | -DREADERS=3 -DJOINERS=2 -DDEATH=0 -DFOR_0=1 -DFOR_1=2
death   | publish      | -DREADERS=3 -DJOINERS=0 -DDEATH=1 -DFOR_0=2 -DFOR_1=1
history | publish      | -DHISTORY -DCELLS=1 -DDEATH=1 -DFOR_0=2 -DFOR_1=2
readers | wake_readers |
room    | wake_room    | -DDEATH=0 -DPUBS_RUN=1 -DGOAL=2
rooms   | wake_room    | -DDEATH=0 -DPUBS_RUN=2 -DGOAL=1
widow   | wake_room    | -DDEATH=1 -DPUBS_RUN=1 -DGOAL=2
'

# scene | mutant | what is broken
mutants='
gate    | min_not_bounded         | the minimum is not bounded by tail
join    | stale_tail              | tail is not read again when joining
join    | no_fence_j1             | no fence between the low cursor and tail
join    | no_fence_m1             | no fence between tail and the cursors
gate    | unsigned                | sequences are compared without a sign
death   | head_apart              | an arena head that is kept apart from the slot words
death   | no_reaper               | a dead publisher is not reaped
history | no_floor                | history without floor_seq
readers | no_fence_w1             | no fence between sleeping and the slot
readers | no_fence_w2             | no fence between the slot and sleeping
readers | no_wake_before_again    | no wake-up before "again" in the middle of a batch
readers | no_reaper               | the eventfds are not written after a death
readers | reaper_honours_sleeping | the reaper wakes only members that say that they sleep
room    | no_fence_n1_starving    | no fence between a need and starving
room    | no_fence_n1_scan        | no fence between starving and the second scan
room    | no_second_scan          | no second scan before waiting for room
room    | no_fence_n2             | no fence between the cursor and starving
room    | no_fence_n3             | no fence between clearing starving and the needs
room    | no_n4                   | starving stays cleared although a need was found
room    | no_fence_n4             | no fence between starving and the last scan
widow   | no_reaper               | the eventfds are not written after a death
widow   | reaper_honours_need     | the reaper wakes only members that have a need
'

# search MODEL DEFINES...: leaves what pan says in $work/out; false when it did not look at every state
search() {
    local model=$1
    shift
    (
        cd "$work"
        rm -f ./*.trail
        spin "$@" -a "$here/$model.pml" >spin.out 2>&1 || { cat spin.out && exit 1; }
        gcc -O2 -w -DMEMLIM=$megabytes -DSAFETY -DCOLLAPSE -o pan pan.c
        (ulimit -t $seconds && ./pan -m100000 >out 2>&1) || true
    )
    grep -q 'State-vector' "$work/out" && ! grep -qE 'MEMLIM|max search depth|out of memory' "$work/out"
}

failed=0
say() {
    printf '%-6s %-8s %s\n' "$1" "$2" "$3"
    [ "$1" = ok ] || failed=1
}

row() { # row TABLE SCENE COLUMN
    awk -F'|' -v scene="$2" -v column="$3" '{ gsub(/^ +| +$/, "", $1) } $1 == scene { gsub(/^ +| +$/, "", $column); print $column }' <<<"$1"
}

sizes_of() {
    read -ra sizes <<<"$(row "$scenes" "$1" 3)"
    model=$(row "$scenes" "$1" 2)
}

check_scene() {
    sizes_of "$1"
    if search "$model" "${sizes[@]}" && grep -q 'errors: 0' "$work/out"; then
        say ok "$1" "$(grep -oE '[0-9]+ states, stored' "$work/out"), no error"
    else
        say FAILED "$1" "$(grep -E '^pan:|errors:|cannot|syntax' "$work/out" | tr '\n' ' ')"
    fi
}

check_mutant() {
    sizes_of "$1"
    search "$model" "${sizes[@]}" "-DMUTANT_$2" || true
    if grep -qE '^pan:1: (assertion violated|invalid end state)' "$work/out"; then
        say ok "$1" "caught: $3"
    else
        say FAILED "$1" "not caught: $3 ($2)"
    fi
}

if [ $# -eq 2 ]; then
    sizes_of "$1"
    search "$model" "${sizes[@]}" "-DMUTANT_$2" || true
    cat "$work/out"
    cd "$work" && cp "$here/$model.pml" . && spin "${sizes[@]}" "-DMUTANT_$2" -k "$model.pml.trail" -p -g "$model.pml" | tail -80
    exit
fi
mapfile -t names < <(awk 'NF { print $1 }' <<<"$scenes")
for scene in "${names[@]}"; do
    [ $# -eq 0 ] || [ "$1" = "$scene" ] || continue
    check_scene "$scene"
    while IFS='|' read -r where mutant what; do
        [ "${where// /}" != "$scene" ] || check_mutant "$scene" "${mutant// /}" "${what# }"
    done <<<"$mutants"
done
exit $failed
