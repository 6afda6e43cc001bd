#!/usr/bin/env bash
# Makes .venv/ from requirements.lock and the project itself, or leaves it as it is where it is up to date.
# docs/runtimes.md describes it. $PYTHON, where set, is the Python to use.
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.venv/made-from       # written last: what the environment was made from
unfinished=.venv/unfinished # there while it is being changed, so that a killed set-up is made anew

# The place is part of it: the project's sources and the scripts' Python are named by absolute path.
inputs() {
    sha256sum requirements.lock pyproject.toml scripts/make_env.sh
    pwd
}

up_to_date() {
    [ -f "$stamp" ] && [ ! -e "$unfinished" ] && [ "$(inputs)" = "$(cat "$stamp")" ] &&
        .venv/bin/python -I -S -c '' 2>/dev/null &&
        { [ -z "${PYTHON:-}" ] || [ "$(version "$PYTHON")" = "$(version .venv/bin/python)" ]; }
}

version() {
    "$1" -I -S -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true
}

moved() {
    [ -f "$stamp" ] && [ "$(tail -n 1 "$stamp")" != "$(pwd)" ]
}

# The lock's own lines for uv, hashes included: all that pip installs.
uv_lines() {
    awk '/^[^ #]/ { wanted = /^uv==/ } wanted' requirements.lock
}

step() {
    echo "env: $* (${SECONDS} s)" >&2
}

if up_to_date; then exit 0; fi
mkdir -p .cache
exec 9>.cache/make_env.lock
flock 9 # two set-ups at once: the second waits, and then finds it made
if up_to_date; then exit 0; fi

choice=$(scripts/find_python.sh)
read -r runtime minor python <<<"$choice"
step "the $runtime runtime, Python $minor from $python; the first time takes minutes and about 4 GB"

if [ -e "$unfinished" ] || moved || [ "$(version .venv/bin/python)" != "$minor" ]; then
    rm -rf .venv
    mkdir .venv
    touch "$unfinished"
    "$python" -m venv .venv
fi
touch "$unfinished"
rm -f "$stamp"

if [ "$(.venv/bin/uv --version 2>/dev/null | cut -d' ' -f2)" != "$(uv_lines | sed -n '1s/uv==\([^ ]*\).*/\1/p')" ]; then
    step "installing uv"
    uv_lines >.venv/uv.txt
    .venv/bin/python -m pip -qq --disable-pip-version-check install --require-hashes --no-deps -r .venv/uv.txt
fi
uv=(.venv/bin/uv --quiet --no-progress)
step "installing what requirements.lock names"
# Compiled at once: otherwise the first import of TFX takes a minute, and every one where bytecode may not be written.
"${uv[@]}" pip sync --python .venv/bin/python --require-hashes --build-constraints requirements.lock \
    --compile-bytecode requirements.lock
step "installing the project"
"${uv[@]}" pip install --python .venv/bin/python --no-deps --no-build-isolation --editable .

inputs >"$stamp.new"
mv "$stamp.new" "$stamp"
rm -f "$unfinished"
step "done"
