#!/usr/bin/env bash
# Runs the compiled package of the preset `local` container by container, with podman and the project's image, and
# checks what each step left behind (docs/kubeflow.md). Fails where podman can't run. Further arguments are pytest's.
set -euo pipefail
cd "$(dirname "$0")/.."

image=$(scripts/build_image.sh)
work=$(mktemp -d)
service=
stop() {
    if [ -n "$service" ]; then kill "$service" 2>/dev/null || true; fi
    rm -rf "$work"
}
trap stop EXIT
# shellcheck source=scripts/podman.sh
. scripts/podman.sh

socket=$work/podman.sock
podman system service --time 0 "unix://$socket" >"$work/service.log" 2>&1 &
service=$!
for _ in $(seq 50); do
    if [ -S "$socket" ]; then break; fi
    sleep 0.2
done
[ -S "$socket" ] || fail "podman's service does not start: $(tail -n 1 "$work/service.log")"
chmod 660 "$socket" # for the containers' user, who is of root's group

echo "kubeflow: image $image; about four minutes" >&2
MARCO_TEST_KUBEFLOW=1 MARCO_TEST_IMAGE=$image MARCO_TEST_SOCKET=$socket \
    .venv/bin/python -m pytest -m "" -s tests/kubeflow "$@"
