#!/usr/bin/env bash
# with_engine.sh COMMAND …: run COMMAND where a Docker engine answers; without one, NO_ENGINE says why.
set -euo pipefail
engine=$(dirname "$0")/engine.sh
words=$(mktemp)
trap 'rm -f "$words"; "$engine" down' EXIT

status=0
lines=$("$engine" up 2>"$words") || status=$?
cat "$words" >&2
if [ "$status" = 77 ]; then
    export NO_ENGINE="$(tail -n 1 "$words")"
elif [ "$status" != 0 ]; then
    exit "$status"
fi
while IFS= read -r line; do
    [ -z "$line" ] || export "${line?}"
done <<<"$lines"
"$@"
