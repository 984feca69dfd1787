#!/bin/bash
# The first process of the namespaces: covers what dockerd would change on the machine, starts what
# the cluster needs beside it, and stays. When it ends, the kernel ends every other process in here.
#
#   inside.sh WORK COREDNS    the directory of sockets, settings and logs; the program
set -eu
work=$1 coredns=$2
ip link set lo up
# Packets to an address that nobody has programmed yet end here, at once and with an answer.
ip route add unreachable default
ip -6 route add unreachable default 2> /dev/null || true
mount -t tmpfs -o mode=0755 tmpfs /run
for place in etc opt; do # dockerd writes into /etc/docker and /opt/containerd
  over=/run/covered/$place
  mkdir -p "$over".{upper,work}
  mount -t overlay -o "lowerdir=/$place,upperdir=$over.upper,workdir=$over.work" overlay "/$place"
done
# A name server that answers NXDOMAIN: without one, Docker's own does not answer for names of the
# outside, and each look-up of one in a pod takes 20 seconds.
ip address add 192.0.2.53/32 dev lo # of TEST-NET-1
printf '. {\n  bind 192.0.2.53\n  template ANY ANY {\n    rcode NXDOMAIN\n  }\n}\n' > /run/Corefile
"$coredns" -quiet -conf /run/Corefile &
dockerd --config-file "$work/daemon.json" --exec-root "$work/exec" --pidfile /run/dockerd.pid &
dockerd=$!
trap 'kill "$dockerd"; wait "$dockerd"; exit 0' TERM
# The first process of a namespace is the parent of every orphan, and waits for all of them.
while :; do wait -n || sleep 1; done
