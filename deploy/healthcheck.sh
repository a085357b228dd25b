#!/bin/bash
# healthcheck PORT PATH: whether this container's service answers 200. Bash speaks TCP by itself.
set -eu
exec 3<>"/dev/tcp/127.0.0.1/$1"
printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$2" >&3
read -r _ status _ <&3
[ "$status" = 200 ]
