#!/bin/sh
# Install a part of a lock file into /opt/venv, for an image: no pip in there, everything compiled.
#
# Usage: install_packages.sh LOCK [--only NAME… | --without NAME…]
set -eu
lock=$1
shift
python3 /build/lock_part.py "/build/$lock" "$@" >/build/part.lock
# `--no-deps`: the lock lists everything, and leaves out what would have to be compiled.
/opt/venv/bin/pip install --disable-pip-version-check --no-cache-dir --no-input --no-deps \
    --require-hashes --only-binary :all: -r /build/part.lock
/opt/venv/bin/pip uninstall --quiet --yes pip setuptools
