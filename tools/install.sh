#!/usr/bin/env bash
# Installs what is built, or removes it again: the same list for both.
#
#   tools/install.sh install|uninstall BUILD_DIR PREFIX VERSION "PKG-CONFIG NAMES"
#
# DESTDIR in the environment is put in front of every path, and is no part of what crier.pc says.
set -eu

[ $# -eq 5 ] || { echo "usage: tools/install.sh install|uninstall BUILD_DIR PREFIX VERSION REQUIRES" >&2 && exit 2; }
action=$1 build=$2 prefix=$3 version=$4 requires=$5
case $prefix in
/*) ;;
*) prefix=$PWD/$prefix ;;
esac
dest=${DESTDIR:-}$prefix

# place MODE SOURCE FOLDER
place() {
    local path=$dest/$3/${2##*/}
    case $action in
    install) install -D -m "$1" "$2" "$path" && echo "  INSTALL $path" ;;
    uninstall) rm -f "$path" && echo "  REMOVE $path" ;;
    esac
}

# The library is static: an application is linked with the libraries that it uses as well, so they are no private requirement.
pkgconfig_file() {
    printf '%s\n' "prefix=$prefix" "includedir=\${prefix}/include" "libdir=\${prefix}/lib" "" \
        "Name: crier" "Description: WebSocket broadcast server, as a library for applications" "Version: $version" \
        "Requires: $requires" "Cflags: -I\${includedir}" "Libs: -L\${libdir} -lcrier -pthread"
}

place 755 "$build/crier" bin
place 755 "$build/crier-ring" bin
place 755 "$build/crier-bench" bin
place 644 "$build/libcrier.a" lib
place 644 worker/api/crier.h include
for page in "$build"/crier.1 docs/*.1; do
    place 644 "$page" share/man/man1
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pkgconfig_file >"$work/crier.pc"
place 644 "$work/crier.pc" lib/pkgconfig
