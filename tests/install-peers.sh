#!/bin/sh
# Installs the programs that the tests compare Drystone with, and a test user with subordinate ids.
#
# Needs root on Debian or a relative of it. A test whose program is missing says so and passes, so
# this script is a convenience for people and a must for CI. It asks apt-get only for what is missing.
# Packages that its arguments name come too (.ci/long).
set -eu

packages="
    apt-utils bubblewrap ca-certificates containerd curl docker-registry docker.io dpkg-dev e2fsprogs gcc git gnupg gpgv iproute2 jq
    mmdebstrap mount openssl passwd podman runc skopeo uidmap umoci util-linux xz-utils zstd $*
"
# Debian 13 has the docker command in a package of its own.
if apt-cache show docker-cli >/dev/null 2>&1; then
    packages="$packages docker-cli"
fi

if [ "$(id -u)" -ne 0 ]; then
    echo "install-peers: not root, so nothing is installed; tests without their peer are skipped" >&2
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "install-peers: no apt-get here; install by hand:" $packages >&2
    exit 0
fi

installed() {
    [ "$(dpkg-query --show --showformat '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}
lacking() {
    for package in $packages; do
        # A program that came another way will do.
        case $package in
        docker.io | docker-cli) command -v docker >/dev/null && command -v dockerd >/dev/null && continue ;;
        esac
        installed "$package" || echo "$package"
    done
}

missing=$(lacking)
if [ -n "$missing" ]; then
    apt-get update
    # Names are split into words on purpose. No service may start in CI.
    DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install --yes --no-install-recommends $(lacking)
fi

# The ordinary user that builds without root; its subordinate ids are its own.
user=drystone-test
if ! id "$user" >/dev/null 2>&1; then
    useradd --create-home --shell /bin/sh "$user"
fi
if ! grep -q "^$user:" /etc/subuid; then
    usermod --add-subuids 300000-365535 --add-subgids 300000-365535 "$user"
fi
