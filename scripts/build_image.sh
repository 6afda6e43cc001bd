#!/usr/bin/env bash
# Builds the image of Dockerfile with podman, or finds that nothing has changed. The last line of stdout names it by its
# digest, as `marco compile --image` wants it.
#
#   scripts/build_image.sh                      localhost/marco-pipeline:latest
#   ACCELERATOR=gpu scripts/build_image.sh      localhost/marco-pipeline:gpu, with CUDA
#   BASE=IMAGE scripts/build_image.sh           on another Debian 13, best by its digest
#   DEBIAN_MIRROR=URL scripts/build_image.sh    with Debian's packages from there, such as a day's of snapshot.debian.org
#   scripts/build_image.sh --no-cache           anew; options go to podman build
#
# The same sources, base and Debian packages give the same files (CONTRIBUTING.md, "Release").
#
# Debian 13 comes from its registry, or where none is reached from debootstrap (root), as localhost/debian:13-slim.
# How this machine reaches Debian and the package index is handed in as build secrets, of which nothing stays.
set -euo pipefail
cd "$(dirname "$0")/.."

accelerator=${ACCELERATOR:-cpu}
case "$accelerator" in
cpu) name=localhost/marco-pipeline:latest gigabytes=20 ;;
gpu) name=localhost/marco-pipeline:gpu gigabytes=50 ;;
*) echo "error: ACCELERATOR is '$accelerator'; give cpu or gpu." >&2 && exit 1 ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# shellcheck source=scripts/podman.sh
. scripts/podman.sh

step() {
    echo "image: $* (${SECONDS} s)" >&2
}

make_base() {
    local mirror proxy
    [ "$(id -u)" = 0 ] || fail "$1 cannot be pulled, and debootstrap needs root: set BASE to an image of Debian 13."
    have debootstrap debootstrap
    mirror=$(scripts/test_debian13.sh --mirror)
    proxy=$(apt-config shell proxy Acquire::http::Proxy 2>/dev/null || true)
    eval "$proxy"
    step "$1 cannot be pulled; making $2 with debootstrap"
    http_proxy=${http_proxy:-${proxy:-}} debootstrap --variant=minbase trixie "$work/root" "$mirror" \
        >"$work/debootstrap.log" 2>&1 || fail "debootstrap failed: $(tail -n 1 "$work/debootstrap.log" | without_logins)"
    # Nothing of this machine's, and as slim as Debian's own.
    (
        cd "$work/root"
        rm -rf var/cache/apt/* var/lib/apt/lists/* var/log/* etc/resolv.conf etc/hostname tmp/* \
            usr/share/{doc,info,lintian,locale,man}/*
        echo "deb http://deb.debian.org/debian trixie main" >etc/apt/sources.list
    )
    tar -C "$work/root" -c . | podman import --quiet --change CMD=bash - "$2" >/dev/null
    rm -rf "$work/root"
}

base() {
    local pulled=docker.io/library/debian:13-slim made=localhost/debian:13-slim name
    for name in "$pulled" "$made"; do
        if podman image exists "$name"; then echo "$name" && return; fi
    done
    if timeout 120 podman pull --quiet "$pulled" >/dev/null 2>&1; then echo "$pulled" && return; fi
    make_base "$pulled" "$made"
    echo "$made"
}

# secret NAME FILE: hands a file in, where there is one.
secrets=()
secret() {
    if [ -s "$2" ]; then secrets+=(--secret "id=$1,src=$2"); fi
}

hand_in() {
    local certificates=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt} variable mirror
    secret ca "$certificates"
    secret pip.conf "$(first_of "${PIP_CONFIG_FILE:-}" "$HOME/.config/pip/pip.conf" /etc/pip.conf)"
    secret uv.toml "$(first_of "${UV_CONFIG_FILE:-}" "$HOME/.config/uv/uv.toml" /etc/uv/uv.toml)"
    {
        for variable in PIP_DEFAULT_TIMEOUT PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST UV_DEFAULT_INDEX \
            UV_INDEX_URL UV_INDEX UV_HTTP_TIMEOUT; do
            if [ -n "${!variable:-}" ]; then printf 'export %s=%q\n' "$variable" "${!variable}"; fi
        done
        for variable in ca:SSL_CERT_FILE ca:PIP_CERT ca:REQUESTS_CA_BUNDLE pip.conf:PIP_CONFIG_FILE \
            uv.toml:UV_CONFIG_FILE; do
            if [[ " ${secrets[*]} " == *" id=${variable%%:*},"* ]]; then
                echo "export ${variable##*:}=/run/secrets/${variable%%:*}"
            fi
        done
    } >"$work/network"
    secret network "$work/network"
    # The mirror of another distribution than Debian is no use inside.
    if [ -z "${DEBIAN_MIRROR:-}" ] && ! grep -qs '^ID=debian' /etc/os-release; then return; fi
    mirror=$(scripts/test_debian13.sh --mirror) || return 0
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$work/sources.list"
    {
        echo "Dir::Etc::sourcelist \"/run/secrets/sources.list\";"
        echo "Dir::Etc::sourceparts \"-\";"
        apt-config dump --format '%f "%v";%n' | grep '^Acquire::https\?::Proxy ' || true
    } >"$work/apt.conf"
    secret sources.list "$work/sources.list"
    secret apt.conf "$work/apt.conf"
}

first_of() {
    local file
    for file in "$@"; do
        if [ -s "$file" ]; then echo "$file" && return; fi
    done
}

before=$(podman image inspect --format '{{.Id}}' "$name" 2>/dev/null || true)
from=${BASE:-$(base)}
hand_in
step "building $name on $from; the first time takes some minutes and up to $gigabytes GB of free disk"
# As text: podman 4.3 takes a label with a build argument from its cache when the argument has changed, and an option
# --label would change the images of all instructions.
{
    cat Dockerfile
    echo "LABEL org.opencontainers.image.version=\"$(sed -n '/^version = /{s/.*"\(.*\)".*/\1/p;q}' pyproject.toml)\" \\"
    echo "    org.opencontainers.image.revision=\"$(git describe --always --abbrev=40 --dirty 2>/dev/null || echo unknown)\""
} >"$work/Dockerfile"
podman build "$@" --network host --timestamp 315532800 --tag "$name" --file "$work/Dockerfile" \
    --build-arg "BASE=$from" --build-arg "ACCELERATOR=$accelerator" "${secrets[@]}" . 2>&1 | tee "$work/build.log" |
    sed -un 's#://[^/@ ]*@#://***@#g; s/--mount=[^ ]* *//g; s/^.*STEP \([0-9/]*: .\{1,60\}\).*/image:   \1/p' >&2 ||
    { tail -n 30 "$work/build.log" | without_logins >&2 && fail "the image cannot be built: the log ends above."; }
after=$(podman image inspect --format '{{.Id}}' "$name")
if [ "$before" = "$after" ]; then
    step "nothing has changed"
else
    step "done, $(podman image inspect --format '{{.Size}}' "$name" | awk '{ printf "%.2f GB", $1 / 1e9 }')"
    # The one it replaces, where nothing else names or runs it.
    if [ -n "$before" ]; then podman image rm "$before" >/dev/null 2>&1 || true; fi
fi
echo "${name%:*}@$(podman image inspect --format '{{.Digest}}' "$name")"
