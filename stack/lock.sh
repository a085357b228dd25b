#!/bin/sh
# Write the lock files: `make lock`. They name versions and hashes, never an index or a folder.
set -eu
version=$1 folder=$2

if [ "$("$folder/bin/uv" --version 2>/dev/null | cut -d' ' -f2)" != "$version" ]; then
    rm -rf "$folder"
    .venv/bin/python -m venv "$folder"
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$version"
fi

compile() {
    UV_CACHE_DIR=.cache/uv-cache "$folder/bin/uv" pip compile --quiet --universal \
        --python-version 3.11 --no-python-downloads --generate-hashes \
        --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' "$@"
}
compile pyproject.toml --output-file requirements.lock
compile pyproject.toml --group dev --constraints requirements.lock --output-file requirements-dev.lock
compile --group node --output-file requirements-node.lock
compile --group bench --output-file requirements-bench.lock
compile --group audit --output-file requirements-audit.lock
compile --no-deps tests/compose/docker-compose-1.in --output-file tests/compose/docker-compose-1.lock

npm install --package-lock-only --cache .cache/npm

if grep -n '://' requirements*.lock tests/compose/*.lock package-lock.json; then
    echo "make: a lock file names a host" >&2
    exit 1
fi
