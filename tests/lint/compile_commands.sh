#!/usr/bin/env bash
# Prints compile_commands.json, from which editors and clang-tidy know how each source is compiled.
#
#   tests/lint/compile_commands.sh "COMPILER FLAGS" SOURCE.c...
set -euo pipefail

command=${1:?usage: tests/lint/compile_commands.sh COMMAND SOURCE.c...}
shift
command=${command//\\/\\\\}
command=${command//\"/\\\"}

separator='['
for source in "$@"; do
    printf '%s\n{"directory": "%s", "file": "%s", "command": "%s -c %s"}' "$separator" "$PWD" "$source" "$command" "$source"
    separator=,
done
printf '\n]\n'
