#!/usr/bin/env bash
# Installs the Debian packages that a purpose needs and this machine lacks. `make` calls it; when nothing is missing it
# prints nothing.
#
#   tools/setup.sh build|unit|test|lint|format|bench|peers|long|interop|fuzz
#
# One line per step goes to stderr, what apt-get prints to build/setup.log, or to a file below TMPDIR when build/ cannot
# be written.
set -eu

usage() {
    echo "usage: tools/setup.sh build|unit|test|lint|format|bench|peers|long|interop|fuzz" >&2
    exit 2
}

[ $# -eq 1 ] || usage
case $1 in
build) groups='build' ;;
unit) groups='build unit' ;; # unit, corpus and torture programs
test) groups='build unit test' ;;
lint) groups='build unit format lint' ;; # lint compiles the tests as well
format) groups='format' ;;
bench) groups='build bench' ;;
peers) groups='build test bench peers' ;; # two of the peers are clients that the tests use as well
long) groups='build unit test long' ;;
interop) groups='build unit test interop' ;;
fuzz) groups='build fuzz' ;;
*) usage ;;
esac

# group | Debian package | how to see that it is there
table='
build | gcc                | command gcc
build | libc6-dev          | file /usr/include/stdio.h
build | make               | command make
build | pkg-config         | command pkg-config
build | libevent-dev       | pkgconfig libevent_core
build | libssl-dev         | pkgconfig libcrypto
build | zlib1g-dev         | pkgconfig zlib
build | liburcu-dev        | pkgconfig liburcu-cds
unit | libcmocka-dev       | pkgconfig cmocka
test | python3-pytest      | python pytest
test | python3-websockets  | python websockets
test | python3-wsproto     | python wsproto
test | nodejs              | command node
test | node-ws             | file /usr/share/nodejs/ws/package.json
test | curl                | command curl
test | nginx               | file /usr/sbin/nginx
test | haproxy             | command haproxy
test | openssl             | command openssl
test | iproute2            | command ip
test | procps              | command pgrep
test | valgrind            | command valgrind
test | strace              | command strace
long | spin                | command spin
interop | chromium         | command chromium
interop | python3-aiohttp  | python aiohttp
interop | python3-tornado  | python tornado
interop | gir1.2-soup-3.0  | typelib Soup-3.0
interop | python3-gi       | python gi
interop | python3-pyqt5.qtwebsockets | file /usr/lib/python3/dist-packages/PyQt5/QtWebSockets.abi3.so
interop | libmojolicious-perl | file /usr/share/perl5/Mojolicious.pm
interop | openjdk-17-jdk-headless | command javac
bench | gnuplot-nox        | command gnuplot
peers | libnginx-mod-nchan | file /usr/lib/nginx/modules/ngx_nchan_module.so
peers | libwebsockets-dev  | pkgconfig libwebsockets
peers | mosquitto          | file /usr/sbin/mosquitto
peers | npm                | command npm
peers | golang-go          | command go
peers | golang-github-gorilla-websocket-dev | file /usr/share/gocode/src/github.com/gorilla/websocket/conn.go
fuzz | clang               | command clang
fuzz | libclang-rt-dev     | clang_rt fuzzer
format | clang-format      | command clang-format
lint | clang-tidy          | command clang-tidy
lint | cppcheck            | command cppcheck
lint | mandoc              | command mandoc
lint | shellcheck          | command shellcheck
lint | python3-pytest      | python pytest
lint | python3-pyflakes    | python pyflakes
lint | libwebsockets-dev   | pkgconfig libwebsockets
'

# The distribution's own Python has the python3-* packages, whichever python3 comes first in PATH.
is_there() {
    case $1 in
    command) command -v "$2" ;;
    file) [ -e "$2" ] ;;
    pkgconfig) pkg-config --exists "$2" ;;
    typelib) ls /usr/lib/*/girepository-1.0/"$2".typelib ;;
    clang_rt) [ -e "$(clang --print-file-name="libclang_rt.$2-$(uname -m).a")" ] ;;
    python) /usr/bin/python3 -c "import importlib.util as u, sys; sys.exit(u.find_spec('$2') is None)" ;;
    esac >/dev/null 2>&1
}

missing_packages() {
    while IFS='| ' read -r group package kind name; do
        case " $groups " in *" $group "*) ;; *) continue ;; esac
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

# One set-up at a time, of all trees on this machine; the one before may have installed what is missing here.
if [ -r /var/lib/dpkg ] && command -v flock >/dev/null; then
    exec 9</var/lib/dpkg
    if ! flock -n 9; then
        echo "setup: waiting for the set-up of another tree" >&2
        flock -w 900 9 || { echo "setup: another set-up holds /var/lib/dpkg, and did not end in 15 minutes" >&2 && exit 1; }
    fi
    missing=$(missing_packages)
    [ -n "$missing" ] || exit 0
fi

cd "$(dirname "$0")/.."
log=build/setup.log
tools/as_owner.sh sh -c "mkdir -p build && : >>$log" 2>/dev/null || log=$(mktemp -t crier-setup.XXXXXX)

# Not stdin: it may be the server's input. sudo asks for a password on the terminal.
apt() {
    echo "# apt-get $*" >>"$log"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=600 "$@" \
        </dev/null >>"$log" 2>&1 9<&-
}

failed() {
    echo "setup: $1; the last lines of $log:" >&2
    tail -n 8 "$log" | sed 's/^/    /' >&2
    exit 1
}

read -ra packages <<<"$missing"
echo "setup: reading the package lists (${as_root[*]:+${as_root[*]} }apt-get update; its output is in $log)" >&2
apt update || echo "setup: apt-get update failed, see $log; continuing with the package lists that are here" >&2
echo "setup: installing ${packages[*]}" >&2
apt install --no-install-recommends "${packages[@]}" || failed "apt-get could not install ${packages[*]}"

hash -r
missing=$(missing_packages)
[ -z "$missing" ] || failed "installed, but still not found:$missing. Another version earlier in PATH may hide it"
echo "setup: done" >&2
