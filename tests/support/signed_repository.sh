#!/bin/sh
# Makes a signed Debian repository of all .deb files below a folder, with a key of its own.
#
#   signed_repository.sh DIR KEYDIR
#
# DIR       becomes the mirror's base: the packages stay where they are, DIR/dists/ is written anew.
# KEYDIR    holds the signing key (made when there is none); repository.asc is its public part.
#
# Environment: SUITE (test), CODENAME (= SUITE), COMPONENT (main), ORIGIN (Drystone Test), LABEL (= ORIGIN),
# VALID_DAYS (none: no Valid-Until), BY_HASH (yes), SIGN_OPTIONS (more options for gpg),
# ARCHITECTURES (those of the packages), REPOSITORY_DATE (now; any date that date(1) understands).
# Needs apt-ftparchive, gpg, xz, gzip.
set -eu

if [ $# -ne 2 ]; then
    echo "usage: $0 DIR KEYDIR" >&2
    exit 2
fi
mkdir -p "$1" "$2"
dir=$(cd "$1" && pwd)
keys=$(cd "$2" && pwd)
suite=${SUITE:-test}
component=${COMPONENT:-main}
origin=${ORIGIN:-Drystone Test}
by_hash=${BY_HASH:-yes}
release_date=$(LC_ALL=C date -u -d "${REPOSITORY_DATE:-now}" '+%a, %d %b %Y %H:%M:%S UTC')

export GNUPGHOME="$keys" LC_ALL=C
chmod 700 "$keys"
# The agent would outlive the test and keep its directory busy.
trap 'gpgconf --kill all >/dev/null 2>&1 || true' EXIT
sign() {
    gpg --batch --yes --quiet --no-tty --pinentry-mode loopback --passphrase '' "$@"
}
if [ ! -f "$keys/repository.asc" ]; then
    sign --quick-gen-key "$origin <repository@example.com>" ed25519 sign 0
    sign --armor --export --output "$keys/repository.asc"
fi

cd "$dir"
rm -rf "dists/$suite"
architectures=$(find . -name '*.deb' -exec dpkg-deb --field {} Architecture \; | sort -u |
    grep -vx all || true)
# A repository of nothing but `all` packages still needs an index.
architectures=${ARCHITECTURES:-${architectures:-$(dpkg --print-architecture)}}
for architecture in $architectures; do
    index="dists/$suite/$component/binary-$architecture"
    mkdir -p "$index"
    apt-ftparchive --arch "$architecture" packages . | sed 's|^Filename: \./|Filename: |' \
        >"$index/Packages"
    xz --keep "$index/Packages"
    gzip --keep --no-name "$index/Packages"
    if [ "$by_hash" = yes ]; then
        mkdir -p "$index/by-hash/SHA256"
        for file in "$index"/Packages*; do
            ln -f "$file" "$index/by-hash/SHA256/$(sha256sum "$file" | cut -d' ' -f1)"
        done
    fi
done

# Written by hand and not by apt-ftparchive, which would list by-hash as well and cannot set a date.
release="dists/$suite/Release"
{
    echo "Origin: $origin"
    echo "Label: ${LABEL:-$origin}"
    echo "Suite: $suite"
    echo "Codename: ${CODENAME:-$suite}"
    echo "Date: $release_date"
    if [ -n "${VALID_DAYS:-}" ]; then
        until=$(date -u -d "$release_date + $VALID_DAYS days" '+%a, %d %b %Y %H:%M:%S UTC')
        echo "Valid-Until: $until"
    fi
    echo "Acquire-By-Hash: $by_hash"
    echo "Architectures:" $architectures
    echo "Components: $component"
    echo "Description: packages made by a test"
    echo "SHA256:"
    (cd "dists/$suite" && find "$component" -name 'Packages*' | sort | while read -r file; do
        echo " $(sha256sum "$file" | cut -d' ' -f1) $(stat -c %s "$file") $file"
    done)
} >"$release"
# SIGN_OPTIONS is split into words on purpose.
sign ${SIGN_OPTIONS:-} --clearsign --output "dists/$suite/InRelease" "$release"
sign ${SIGN_OPTIONS:-} --armor --detach-sign --output "$release.gpg" "$release"
