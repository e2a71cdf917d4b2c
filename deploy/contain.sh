#!/bin/sh
# Runs a command inside a root file system as a careful container runtime would: read-only but for /tmp and /cache, as
# user 10001 without capabilities, as process 1 of its own, with the host's network.
#
#   unshare --mount --pid --ipc --fork --kill-child deploy/contain.sh ROOT WORKDIR NAME=VALUE... COMMAND ARGUMENT...
#
# Needs root and Debian's util-linux and coreutils.
set -eu
root=$1
workdir=$2
shift 2

mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=0755 tmpfs "$root/dev"
for device in null zero full random urandom; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm"
for folder in dev/shm tmp cache; do
    mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs "$root/$folder"
done
mount -o remount,bind,ro "$root"

exec chroot --userspec=10001:10001 --groups= "$root" \
    setpriv --no-new-privs --bounding-set=-all --inh-caps=-all \
    env -i --chdir="$workdir" "$@"
