#!/bin/bash
# rootfs.sh TARGET: the root file system of the node, from the Debian archive: what kind's own base
# image has, with Debian's runc and CNI plugins, and ipset for the network policies.
set -eu
root=$1
# shellcheck disable=SC2016 # apt-get replaces it
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' | head -n 1)
[ -n "$mirror" ] || { echo "apt knows no archive of bookworm; see apt-get indextargets" >&2; exit 1; }
packages=systemd,dbus,conntrack,iptables,nftables,ipset,iproute2,ethtool,util-linux,mount,kmod
packages=$packages,libseccomp2,pigz,e2fsprogs,ca-certificates,curl,jq,procps,busybox
packages=$packages,runc,containernetworking-plugins
debootstrap --variant=minbase --include="$packages" bookworm "$root" "$mirror"
