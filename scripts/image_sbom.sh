#!/usr/bin/env bash
# Writes build/image.cdx.json, CycloneDX of what is installed in the image, checked against its schema.
#
#   scripts/image_sbom.sh                       localhost/marco-pipeline:latest, which make image builds
#   IMAGE=NAME scripts/image_sbom.sh            another one
set -euo pipefail
cd "$(dirname "$0")/.."

image=${IMAGE:-localhost/marco-pipeline:latest}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# shellcheck source=scripts/podman.sh
. scripts/podman.sh

podman image exists "$image" || fail "there is no image $image: run make image first, or set IMAGE."
podman run --rm --interactive --network none "$image" python - --list <scripts/image_sbom.py >"$work/packages.json"
mkdir -p build
.venv/bin/uv --quiet run --no-project --with cyclonedx-bom==7.5.0 scripts/image_sbom.py \
    "$work/packages.json" build/image.cdx.json "$(podman image inspect --format '{{.Digest}}' "$image")"
