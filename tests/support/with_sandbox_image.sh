#!/usr/bin/env bash
# with_sandbox_image.sh COMMAND …: run COMMAND where the image of the sandboxes is, if there is an engine.
set -euo pipefail
if [ -z "${NO_ENGINE:-}" ]; then
    export DOCKER_HOST=${DOCKER_HOST:-unix:///var/run/docker.sock}
    export SPAWNER_IMAGE=opencode-multiuser-test/sandbox:test
    docker build --quiet --target sandbox --tag "$SPAWNER_IMAGE" \
        --build-arg "PIP_INDEX_URL=${PIP_INDEX_URL:-}" --build-arg "NPM_CONFIG_REGISTRY=${NPM_CONFIG_REGISTRY:-}" \
        --build-arg "BASE_IMAGE=${BASE_IMAGE:-debian:bookworm-slim}" --build-arg APP_VERSION=test . >&2
fi
exec "$@"
