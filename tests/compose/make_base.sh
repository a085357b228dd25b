#!/usr/bin/env bash
# make_base.sh TAG CACHE: a Debian base image made here, for machines where no image registry answers.
#
# It trusts what this machine trusts, and asks the mirrors that this machine's own apt uses.
set -euo pipefail
tag=$1 cache=$2 suite=bookworm
key=$(cat "$0" /usr/local/share/ca-certificates/*.crt 2>/dev/null | sha256sum | cut -c1-16)
tar=$cache/base-$suite-$key.tar

if [ ! -s "$tar" ]; then
    mapfile -t mirrors < <(apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(CREATED_BY)' |
        awk -v s="$suite" '$3 == "Packages" && ($2 == s || index($2, s "-") == 1) {print "deb", $1, $2, "main"}' | sort -u)
    [ ${#mirrors[@]} -gt 0 ] || { echo "apt knows no $suite mirror here" >&2; exit 1; }
    trusted=$(mktemp -d)
    cp /usr/local/share/ca-certificates/*.crt "$trusted" 2>/dev/null || true
    # The ending decides what mmdebstrap makes: `.new.tar`, not `.tar.new`.
    mmdebstrap --quiet --variant=minbase \
        --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Check-Date "false"' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --customize-hook="mkdir -p \"\$1/usr/local/share/ca-certificates\" && cp $trusted/* \"\$1/usr/local/share/ca-certificates/\" || true" \
        --customize-hook='printf "Acquire::Languages \"none\";\nAcquire::Check-Valid-Until \"false\";\nAcquire::Check-Date \"false\";\n" > "$1/etc/apt/apt.conf.d/90base"' \
        --customize-hook='rm -f "$1/etc/resolv.conf" "$1/etc/hostname"' \
        "$suite" "$tar.new.tar" "${mirrors[@]}"
    rm -rf "$trusted"
    mv "$tar.new.tar" "$tar"
fi
docker import --change 'CMD ["bash"]' --message "made here" "$tar" "$tag" >/dev/null
