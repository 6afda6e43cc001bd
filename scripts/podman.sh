# shellcheck shell=bash
# For the scripts that use podman: sourced, it installs podman where it can and configures it for this machine.
#
# Where privileges are few, as inside another container, podman's own choices fail: it asks for limits above the
# machine's, for a network of the container's own and for systemd's cgroups. The configuration is in $work, a folder of
# the sourcing script's, and ends with it; /etc/containers stays as it is.

fail() {
    echo "error: $*" >&2
    exit 1
}

# Leaves the logins out of the URLs in what it reads: indexes, mirrors and proxies may have one.
without_logins() {
    sed -E 's#(://)[^/@[:space:]]*@#\1***@#g'
}

# have COMMAND PACKAGE...: installs a command where it is missing and this is root on Debian.
have() {
    local command=$1
    shift
    if command -v "$command" >/dev/null; then return; fi
    [ "$(id -u)" = 0 ] && grep -qs '^ID=debian' /etc/os-release ||
        fail "$command is missing: install it, on Debian and Ubuntu with apt-get install $*."
    echo "$command: installing it with apt" >&2
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends "$@"; } \
        >"$work/apt.log" 2>&1 || fail "$command cannot be installed: $(tail -n 1 "$work/apt.log" | without_logins)"
}

# at_most LIMIT HARD: the smaller of the two, where HARD may be "unlimited".
at_most() {
    if [ "$2" = unlimited ] || [ "$1" -lt "$2" ]; then echo "$1"; else echo "$2"; fi
}

configure_podman() {
    local files processes
    files=$(at_most 65536 "$(ulimit -Hn)")
    processes=$(at_most 32768 "$(ulimit -Hu)")
    {
        echo "[containers]"
        echo "netns = \"host\""
        echo "default_ulimits = [\"nofile=$files:$files\", \"nproc=$processes:$processes\"]"
        echo "[engine]"
        echo "cgroup_manager = \"cgroupfs\""
        echo "events_logger = \"file\""
        if command -v runc >/dev/null; then echo "runtime = \"runc\""; fi
    } >"$work/containers.conf"
    export CONTAINERS_CONF=$work/containers.conf
    podman info >"$work/podman.log" 2>&1 || fail "podman does not run here: $(tail -n 1 "$work/podman.log")"
}

have podman podman runc
configure_podman
