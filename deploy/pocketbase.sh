#!/bin/sh
# Prepare the database and its superuser, then serve; the secrets come as files.
set -eu
set -- --dir /data --migrationsDir /app/pb_migrations --automigrate=false
pocketbase set-up "$@" --hooksDir /app/set_up >&2
exec pocketbase serve "$@" --http 0.0.0.0:8090 --hooksDir /app/pb_hooks --publicDir /app/pb_public \
    --hooksWatch=false --indexFallback=false
