#!/usr/bin/env bash
# Resolves pyproject.toml into requirements.lock: one set for both runtimes, with hashes and without any index's address.
# Versions stay as they are unless pyproject.toml asks for others or --upgrade is given. The CUDA libraries that this
# TensorFlow's wheel names go into requirements-gpu.lock, for the image alone.
set -euo pipefail
cd "$(dirname "$0")/.."

.venv/bin/uv --quiet pip compile pyproject.toml --output-file requirements.lock \
    --universal --python-version 3.10 --all-extras --generate-hashes \
    --no-header --no-emit-index-url --no-emit-find-links "$@"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp requirements-gpu.lock "$work/gpu.lock"
echo "tensorflow[and-cuda]" >"$work/gpu.in"
.venv/bin/uv --quiet pip compile "$work/gpu.in" --output-file "$work/gpu.lock" --constraint requirements.lock \
    --python-version 3.13 --python-platform x86_64-manylinux_2_40 --generate-hashes \
    --no-annotate --no-header --no-emit-index-url --no-emit-find-links "$@"
awk '/^[^ #]/ { wanted = /^nvidia-/ } wanted' "$work/gpu.lock" >requirements-gpu.lock
for lock in requirements.lock requirements-gpu.lock; do
    if grep -n '://' "$lock" >&2; then
        echo "error: $lock names an address (above); it must hold names, versions and hashes only." >&2
        exit 1
    fi
done
