#!/bin/sh
# Runs a command as the owner of the tree when root works in the tree of another user, and as it is otherwise, so that
# `sudo make install` leaves nothing in build/ that the user cannot write.
#
#   tools/as_owner.sh COMMAND [ARGS...]
set -eu

owner=$(stat -c %u .)
if [ "$(id -u)" -eq 0 ] && [ "$owner" -ne 0 ]; then
    as_owner="setpriv --reuid=$owner --regid=$(stat -c %g .) --clear-groups"
    # Not where root may not take that identity, or another user's build/ is in the way.
    # shellcheck disable=SC2086 # words
    if $as_owner sh -c 'test -w . && { test ! -e build || test -w build; }' 2>/dev/null; then
        exec $as_owner "$@"
    fi
fi
exec "$@"
