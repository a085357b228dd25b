#!/usr/bin/env bash
# Run a command where a Docker engine and the image of the sandboxes are; without an engine, say why and leave.
set -euo pipefail
engine=$(dirname "$0")/../compose/engine.sh
found=$("$engine" up) || { status=$?; [ $status -eq 77 ] && exit 0; exit $status; }
while IFS== read -r name value; do [ -z "$name" ] || export "$name=$value"; done <<<"$found"
export DOCKER_HOST=${DOCKER_HOST:-unix:///var/run/docker.sock}
trap '"$engine" down' EXIT
export SPAWNER_IMAGE=opencode-multiuser-test/sandbox:test
docker build --quiet --target sandbox --tag "$SPAWNER_IMAGE" \
    --build-arg "PIP_INDEX_URL=${PIP_INDEX_URL:-}" --build-arg "NPM_CONFIG_REGISTRY=${NPM_CONFIG_REGISTRY:-}" \
    --build-arg "BASE_IMAGE=${BASE_IMAGE:-debian:bookworm-slim}" --build-arg APP_VERSION=test . >&2
"$@"
