#!/usr/bin/env bash
# Resolves pyproject.toml into requirements.lock: one set for both runtimes, with hashes and without any index's address.
# Versions stay as they are unless pyproject.toml asks for others or --upgrade is given.
set -euo pipefail
cd "$(dirname "$0")/.."

.venv/bin/uv --quiet pip compile pyproject.toml --output-file requirements.lock \
    --universal --python-version 3.10 --all-extras --generate-hashes \
    --no-header --no-emit-index-url --no-emit-find-links "$@"
if grep -n '://' requirements.lock >&2; then
    echo "error: requirements.lock names an address (above); it must hold names, versions and hashes only." >&2
    exit 1
fi
