#!/usr/bin/env bash
# Chooses the runtime and the Python to make it with, and prints both: "modern 3.13 /usr/bin/python3.13".
# docs/runtimes.md says why there are two runtimes. Where none can be made: one sentence on stderr, exit status 1.
# $PYTHON, where set, is the only Python considered.
set -euo pipefail

fail() {
    echo "error: $*" >&2
    exit 1
}

# at_least 2.41 2.39: is the first version no older than the second?
at_least() {
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

candidates() {
    if [ -n "${PYTHON:-}" ]; then
        command -v "$PYTHON" || true
        return
    fi
    local minor folder name
    local folders=()
    IFS=: read -ra folders <<<"$PATH"
    folders+=(
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin
        "${UV_PYTHON_INSTALL_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/uv/python}"/*/bin
    )
    for minor in "$@"; do
        for folder in "${folders[@]}"; do
            for name in "$folder/python$minor" "$folder/python3"; do
                if [ -x "$name" ]; then echo "$name"; fi
            done
        done
    done
}

# Version, then what this Python lacks for the set-up; nothing where it doesn't run (a pyenv shim, say).
describe() {
    "$1" -I -c '
import importlib.util, os, sys, sysconfig
lacks = [] if importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip") else ["venv"]
if not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")):
    lacks.append("headers")
if sys.implementation.name == "cpython" and sys.maxsize > 2**32:
    print("%d.%d" % sys.version_info[:2], *lacks)
' 2>/dev/null </dev/null || true
}

# find RUNTIME VERSION...: prints the first Python of the first of these versions that has all it needs;
# failing that, leaves the first that fits in $incomplete.
incomplete=""
find_complete() {
    local runtime=$1 minor path version lacks
    shift
    for minor in "$@"; do
        while read -r path; do
            read -r version lacks <<<"$(describe "$path")"
            [ "${version:-}" = "$minor" ] || continue
            if [ -z "$lacks" ]; then
                found="$runtime $version $path"
                return 0
            fi
            [ -n "$incomplete" ] || incomplete="$runtime $version $path $lacks"
        done < <(candidates "$minor")
    done
    return 1
}

system=$(uname -sm)
[ "$system" = "Linux x86_64" ] ||
    fail "TFX is built for Linux on x86_64 only and this is $system: use such a machine, or a container of one."
libc=$(getconf GNU_LIBC_VERSION 2>/dev/null || true)
[ -n "$libc" ] ||
    fail "TFX needs the GNU C library and this system has another: use Debian 12 or 13, Ubuntu 22.04 or 24.04, or RHEL 8 or 9."
glibc=${libc#glibc }
at_least "$glibc" 2.17 ||
    fail "TFX needs glibc 2.17 or newer and this system has $glibc: use Debian 12 or 13, Ubuntu 22.04 or 24.04, or RHEL 8 or 9."

found=""
if at_least "$glibc" 2.39; then
    find_complete modern 3.13 3.12 3.11 || find_complete compatible 3.10 || true
    wanted="Python 3.11, 3.12 or 3.13"
    install="apt-get install python3 python3-venv python3-dev"
else
    find_complete compatible 3.10 || true
    wanted="Python 3.10 (with glibc $glibc, no other version has TFX)"
    install="pyenv install 3.10, or uv python install 3.10 (uv itself: pip install uv, in any environment)"
fi
if [ -z "$found" ] && [ -z "$incomplete" ]; then
    [ -z "${PYTHON:-}" ] || fail "PYTHON=$PYTHON is not $wanted: name one that is, or leave PYTHON out to have one found."
    fail "no fitting Python here, $wanted is needed: $install."
fi

read -r runtime version path lacks <<<"${found:-$incomplete}"
case "$lacks" in
*venv*) fail "$path has no venv module, which the environment is made with: apt-get install python$version-venv." ;;
*headers*) fail "$path has no headers (Python.h), which pyfarmhash is compiled with: apt-get install python$version-dev." ;;
esac
if ! command -v "${CXX:-c++}" >/dev/null && ! command -v g++ >/dev/null; then
    fail "there is no C++ compiler, which pyfarmhash is compiled with: apt-get install g++."
fi
echo "$found"
