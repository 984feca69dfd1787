#!/bin/bash
# base.sh ROOT KIND BIN: turn a root file system (rootfs.sh) into that of kind's base image, with the
# files of kind's own module and the programs that were built. Nothing is run that needs a network.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$1 files=$2/images/base/files bin=$3

cp -r --no-preserve=mode,ownership "$files/etc/." "$root/etc/"
cp -r --no-preserve=mode,ownership "$files/kind" "$root/"
units=$root/lib/systemd/system own=$root/etc/systemd/system
mkdir -p "$root"/{usr/local/bin,etc/kubernetes/manifests,opt/cni/bin,lib/modules} "$own/multi-user.target.wants"
cp --no-preserve=mode "$files/usr/local/bin/entrypoint" "$root/usr/local/bin/"
chmod 755 "$root"/{kind,kind/bin} "$root"/kind/bin/* "$root/usr/local/bin/entrypoint"
cp "$root"/usr/lib/cni/{host-local,loopback,ptp,portmap} "$root/opt/cni/bin/"
install -m755 "$bin"/* "$root/usr/local/bin/"

# The services of kind's Dockerfile, no more.
rm -f "$units"/sysinit.target.wants/systemd-tmpfiles-setup.service "$units"/multi-user.target.wants/* \
  "$own"/*.wants/* "$units"/{local-fs,basic}.target.wants/* "$units"/sockets.target.wants/*{udev,initctl}*
echo ReadKMsg=no >> "$root/etc/systemd/journald.conf"
ln -sf /lib/systemd/systemd "$root/sbin/init"
for one in kubelet containerd undo-mount-hacks; do
  ln -sf "/etc/systemd/system/$one.service" "$own/multi-user.target.wants/$one.service"
done
# A privileged systemd would write settings of the whole machine's kernel: only kind's own, which are
# of the node's network, stay.
rm -f "$root"/usr/lib/sysctl.d/* "$root/etc/sysctl.d/99-sysctl.conf"
for one in systemd-binfmt systemd-modules-load; do ln -sf /dev/null "$own/$one.service"; done
# So would kubelet: it is shown files that already say what it wants.
install -m755 "$here/kernel-settings.sh" "$root/kind/bin/"
printf '[Service]\nExecStartPre=/kind/bin/kernel-settings.sh\n' > "$own/kubelet.service.d/12-kernel-settings.conf"

# A machine may have no CAP_SYS_RESOURCE, and control groups of version 1.
sed -i 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' "$root/etc/containerd/config.toml"
sed -i 's#^KUBELET_EXTRA_ARGS=\(.*\)#KUBELET_EXTRA_ARGS=\1 --fail-cgroupv1=false#' "$root/etc/default/kubelet"
chroot "$root" ctr oci spec | chroot "$root" jq '
  .hooks.createContainer += [{"path": "/kind/bin/mount-product-files.sh"}] | del(.process.rlimits)' \
  > "$root/etc/containerd/cri-base.json"
rm -rf "$root"/var/cache/apt/{*.bin,archives/*.deb} "$root"/var/lib/apt/lists/* "$root"/var/log/* \
  "$root"/usr/share/{doc,man,locale}
