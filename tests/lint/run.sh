#!/usr/bin/env bash
# One of the checks of `make lint`, or, as `reformat`, what makes one of them pass.
#
#   tests/lint/run.sh tree|format|shell|python|manuals|cppcheck|tidy SOURCE.c...
#   tests/lint/run.sh reformat
#
# The sources are all that the Makefile lists. For `tree`, CC_LINE is how it compiles them; for `tidy`,
# build/compile_commands.json says so.
set -euo pipefail

check=${1:?usage: tests/lint/run.sh CHECK [SOURCE.c...]}
shift
python=(/usr/bin/python3 -B) # the distribution's own, which has its python3-* packages
code=(shm server worker tools tests)

# each PATTERN COMMAND...: runs the command once, with all files of that name behind it
each() {
    local pattern=$1
    shift
    find "${code[@]}" -name "$pattern" -print0 | xargs -0 "$@"
}

case $check in
tree)
    "${python[@]}" tests/lint/tree.py --cc "$CC_LINE" "$@"
    "${python[@]}" -m pytest -q --no-header -p no:cacheprovider tests/lint
    ;;
format) each '*.[ch]' clang-format --dry-run --Werror ;;
reformat) each '*.[ch]' clang-format -i ;;
shell) each '*.sh' shellcheck .ci/run ;;
python) each '*.py' "${python[@]}" -m pyflakes ;;
manuals)
    tools/as_owner.sh make VARIANT=release build/release/crier.1 >/dev/null
    # Whether a page that is referred to is installed says nothing about the text.
    complaints=$(mandoc -Tlint docs/*.1 build/release/crier.1 2>&1 |
        grep -vE 'referenced manual not found|outdated mandoc.db' || true)
    [ -z "$complaints" ] || { echo "$complaints" && exit 1; }
    ;;
cppcheck)
    cppcheck --quiet --std=c11 --platform=unix64 --library=posix,gnu -I. -j"$(nproc)" --inline-suppr --error-exitcode=1 \
        --enable=warning,performance,portability "${code[@]}"
    ;;
tidy)
    # One file a run: the analyzer of clang 14 mistakes va_lists in the second one.
    complaints=$(printf '%s\n' "$@" | xargs -P"$(nproc)" -n1 clang-tidy --quiet -p build 2>&1 |
        grep -vE '^[0-9]+ warnings? (generated|treated)' || true)
    [ -z "$complaints" ] || { echo "$complaints" && exit 1; }
    ;;
*)
    echo "tests/lint/run.sh: there is no check called $check" >&2
    exit 2
    ;;
esac
