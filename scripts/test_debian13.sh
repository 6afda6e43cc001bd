#!/usr/bin/env bash
# Runs `make test` on a fresh clone of HEAD in a clean Debian 13 root, which has only what a user is told to install.
#
#   scripts/test_debian13.sh            make the root where there is none yet, then test
#   scripts/test_debian13.sh --clean    the same, on a new root
#   scripts/test_debian13.sh --check    say whether it can be run here, and nothing else
#   scripts/test_debian13.sh COMMAND…   run another command than `make test` in the clone
#
# Needs root, debootstrap and the right to mount. The root and uv's cache in it are kept, 5 GB in all, in
# ${XDG_CACHE_HOME:-~/.cache}/marco-pipeline/debian13. The exit status is that of the command.
set -euo pipefail
cd "$(dirname "$0")/.."

suite=trixie
packages=python3,python3-venv,python3-dev,g++,make,git,ca-certificates
cache=${XDG_CACHE_HOME:-$HOME/.cache}/marco-pipeline/debian13
root=$cache/root
# What the host's programs need to reach the network is handed in, where it is set.
network_variables=(http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY SSL_CERT_FILE REQUESTS_CA_BUNDLE
    PIP_CERT PIP_DEFAULT_TIMEOUT PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST UV_DEFAULT_INDEX UV_INDEX_URL
    UV_HTTP_TIMEOUT)
network_files=(/etc/resolv.conf /etc/hosts /etc/pip.conf "$HOME/.config/pip/pip.conf" /etc/uv/uv.toml
    "$HOME/.config/uv/uv.toml")

fail() {
    echo "error: $*" >&2
    exit 1
}

step() {
    echo "debian13: $* (${SECONDS} s)" >&2
}

check() {
    [ "$(id -u)" = 0 ] || fail "the Debian 13 root needs root: run make test-debian13 as root."
    command -v debootstrap >/dev/null || fail "debootstrap is missing: apt-get install debootstrap."
    unshare --mount --pid --fork true 2>/dev/null ||
        fail "mounting is not allowed here: run it on a machine or in a privileged container."
}

# The host's own mirror, from whatever format its apt is configured in.
mirror() {
    if [ -n "${DEBIAN_MIRROR:-}" ]; then
        echo "$DEBIAN_MIRROR"
        return
    fi
    local codename uris
    codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    uris=$(apt-get update --print-uris 2>/dev/null || true) # prints only
    sed -nE "s#^'(.*)/dists/(${codename:-stable}|stable|testing|unstable|trixie)/main/binary-amd64/Packages.*#\\1#p" \
        <<<"$uris" | sed -n 1p
}

make_root() {
    local from proxy
    from=$(mirror)
    [ -n "$from" ] || fail "apt's configuration names no Debian mirror: set DEBIAN_MIRROR to one."
    proxy=$(apt-config shell proxy Acquire::http::Proxy 2>/dev/null || true)
    eval "$proxy"
    step "making a clean root with debootstrap; this takes some minutes"
    rm -rf "$cache"
    mkdir -m 700 -p "$cache"
    http_proxy=${http_proxy:-${proxy:-}} debootstrap --variant=minbase --include="$packages" \
        "$suite" "$root" "$from" >"$cache/debootstrap.log" 2>&1 ||
        fail "debootstrap failed, $cache/debootstrap.log ends with: $(tail -n 1 "$cache/debootstrap.log")"
    echo "$suite $packages" >"$cache/made-from"
}

# The clone, what stands beside the repository for the tests, and the host's certificates.
lay_out() {
    rm -rf "$root/srv/marco" "$root/srv/shared" "$root"/tmp/* "$root/etc/ssl/certs"
    [ -z "$(git status --porcelain)" ] || step "note: HEAD is tested, without the changes that are not committed"
    git clone --quiet --no-hardlinks "file://$PWD" "$root/srv/marco"
    if [ -d ../shared ]; then cp -r ../shared "$root/srv/shared"; fi
    cp -rL /etc/ssl/certs "$root/etc/ssl/certs" 2>/dev/null || true
    if [ -f "${SSL_CERT_FILE:-}" ]; then
        mkdir -p "$root$(dirname "$SSL_CERT_FILE")"
        cp -L "$SSL_CERT_FILE" "$root$SSL_CERT_FILE"
    fi
}

# In a mount and process namespace of its own: whatever ends this script, nothing stays mounted or running.
enter() {
    local file target name
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount --rbind /dev "$root/dev"
    for file in "${network_files[@]}"; do
        [ -f "$file" ] || continue
        target=$root${file/#$HOME//root}
        mkdir -p "$(dirname "$target")"
        touch "$target"
        mount --bind "$file" "$target"
    done
    local variables=(HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
        UV_CACHE_DIR=/srv/uv TERM="${TERM:-dumb}")
    for name in "${network_variables[@]}" CI; do
        if [ -n "${!name:-}" ]; then variables+=("$name=${!name}"); fi
    done
    # shellcheck disable=SC2016 # expanded by the inner shell
    exec env -i "${variables[@]}" chroot "$root" sh -c 'cd /srv/marco && exec "$@"' sh "$@"
}

case "${1:-}" in
--enter) shift && enter "$@" ;;
--check) check && exit 0 ;;
--mirror) mirror && exit 0 ;;
--clean) clean=yes && shift ;;
esac
check
mkdir -p "$(dirname "$cache")"
exec 9>"$cache.lock"
flock 9 # one at a time: they share the root
if [ -n "${clean:-}" ] || [ "$(cat "$cache/made-from" 2>/dev/null)" != "$suite $packages" ]; then make_root; fi
lay_out
if [ $# = 0 ]; then set -- make --no-print-directory test; fi
step "running: $*"
exec unshare --mount --pid --fork --kill-child scripts/test_debian13.sh --enter "$@"
