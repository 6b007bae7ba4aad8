#!/usr/bin/env bash
# Installs what building, testing or checking crier needs and this machine lacks. `make` calls it; when nothing is
# missing it only looks, and says nothing.
#
#   tools/setup.sh run|test|lint|bench|peers|long|interop|fuzz
set -eu

usage() {
    echo "usage: tools/setup.sh run|test|lint|bench|peers|long|interop|fuzz" >&2
    exit 2
}

[ $# -eq 1 ] || usage
case $1 in
run) purposes='run' ;;
bench) purposes='run bench' ;;
peers) purposes='run test bench peers' ;; # two are those that the tests have as well
test) purposes='run test' ;;
lint) purposes='run test lint' ;; # lint compiles the tests as well
long) purposes='run test long' ;;
interop) purposes='run test interop' ;;
fuzz) purposes='run fuzz' ;;
*) usage ;;
esac

# purpose | Debian package | how to see that it is there
table='
run  | gcc                | command gcc
run  | libc6-dev          | file /usr/include/stdio.h
run  | make               | command make
run  | pkg-config         | command pkg-config
run  | libevent-dev       | pkgconfig libevent_core
run  | libssl-dev         | pkgconfig libcrypto
run  | zlib1g-dev         | pkgconfig zlib
test | libcmocka-dev      | pkgconfig cmocka
test | python3-pytest     | python pytest
test | python3-websockets | python websockets
test | python3-wsproto    | python wsproto
test | nodejs             | command node
test | node-ws            | file /usr/share/nodejs/ws/package.json
test | curl               | command curl
test | procps             | command pgrep
test | valgrind           | command valgrind
test | strace             | command strace
long | spin               | command spin
interop | chromium        | command chromium
bench | gnuplot-nox       | command gnuplot
peers | iproute2          | command ip
peers | nginx             | file /usr/sbin/nginx
peers | libnginx-mod-nchan | file /usr/lib/nginx/modules/ngx_nchan_module.so
peers | libwebsockets-dev | pkgconfig libwebsockets
peers | mosquitto         | file /usr/sbin/mosquitto
peers | npm               | command npm
peers | golang-go         | command go
peers | golang-github-gorilla-websocket-dev | file /usr/share/gocode/src/github.com/gorilla/websocket/conn.go
fuzz | clang              | command clang
fuzz | libclang-rt-dev    | clang_rt fuzzer
lint | clang-format       | command clang-format
lint | clang-tidy         | command clang-tidy
lint | cppcheck           | command cppcheck
lint | shellcheck         | command shellcheck
lint | python3-pyflakes   | python pyflakes
lint | libwebsockets-dev  | pkgconfig libwebsockets
'

# The distribution's own Python has the python3-* packages, whichever python3 comes first in PATH.
is_there() {
    case $1 in
    command) command -v "$2" ;;
    file) [ -e "$2" ] ;;
    pkgconfig) pkg-config --exists "$2" ;;
    clang_rt) [ -e "$(clang --print-file-name="libclang_rt.$2-$(uname -m).a")" ] ;;
    python) /usr/bin/python3 -c "import importlib.util as u, sys; sys.exit(u.find_spec('$2') is None)" ;;
    esac >/dev/null 2>&1
}

missing_packages() {
    while IFS='| ' read -r purpose package kind name; do
        case " $purposes " in *" $purpose "*) ;; *) continue ;; esac
        is_there "$kind" "$name" || printf ' %s' "$package"
    done <<<"$table"
}

missing=$(missing_packages)
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "setup: missing, by their Debian names:$missing. Install them with this system's package manager." >&2
    exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "setup: missing:$missing. Run as root: apt-get install --no-install-recommends$missing" >&2
        exit 1
    fi
    as_root=(sudo)
fi

# Not stdin: that may be what somebody pipes into the server. Not stdout: that stays clean.
apt() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 "$@" </dev/null >&2
}

read -ra packages <<<"$missing"
echo "setup: installing ${packages[*]} with ${as_root[*]:+${as_root[*]} }apt-get" >&2
apt update || echo "setup: apt-get update failed; trying with the package lists that are here" >&2
if ! apt install --no-install-recommends "${packages[@]}"; then
    echo "setup: apt-get could not install ${packages[*]}; its message above says why" >&2
    exit 1
fi

hash -r
missing=$(missing_packages)
if [ -n "$missing" ]; then
    echo "setup: installed, but still not found:$missing. Another version earlier in PATH may hide it." >&2
    exit 1
fi
