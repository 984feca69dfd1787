#!/bin/sh
# Make a base image without an image registry: Debian and its python3, from the Debian archive in
# apt's configuration. For trials; in production use a BASE by its digest.
#
#   sh images/local_base.sh [IMAGE]        default: dwcp-ml-base:local; ENGINE=podman for podman
#   make images BASE=dwcp-ml-base:local
#
# Needs root, Debian's debootstrap, and docker or podman.
set -eu

image=${1:-dwcp-ml-base:local}
engine=${ENGINE:-docker}

fail() {
    echo "local_base.sh: $1" >&2
    exit 1
}

[ "$(id -u)" -eq 0 ] || fail "Only root can create a root file system; run it with sudo."
command -v debootstrap >/dev/null || fail "Debootstrap is missing; apt-get install debootstrap."
"$engine" info >/dev/null 2>&1 || fail "$engine does not respond; start it, or set another ENGINE."

# shellcheck disable=SC1091
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' \
    "Codename: $codename" | head -n 1)
[ -n "$mirror" ] || fail "Apt has no archive of Debian '$codename'; see apt-get indextargets."

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
# Only what wheels need to run: no compiler, no documentation.
debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv \
    "$codename" "$root" "$mirror" >"$root.log" 2>&1 ||
    fail "Debootstrap failed; its last line: $(tail -n 1 "$root.log")"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* "$root.log" \
    "$root"/usr/share/doc "$root"/usr/share/locale "$root"/usr/share/man
tar --create --directory "$root" --numeric-owner --one-file-system . |
    "$engine" import --message "Debian $codename, python3" - "$image" >/dev/null
echo "$image: Debian $codename, $(du --summarize -m "$root" 2>/dev/null | cut -f 1) MB"
