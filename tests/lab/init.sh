#!/bin/sh
# The guest's init: makes an ordinary small Linux host of the initramfs, then answers the port that
# tests/lab/guest.py holds the other end of. One line in: ID SECONDS BASE64-OF-A-SCRIPT.
# One line out: ID EXIT-STATUS LENGTH, and behind it LENGTH bytes of what the script printed.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm /run /tmp /mnt /var/lib /machine
mount -t tmpfs tmpfs /run
mkdir -p /run/lock/iscsi /run/udev/rules.d /run/work
ln -s /dev/null /run/udev/rules.d/60-multipath.rules    # see multipath.py
hostname guest
for module in $(cat /etc/modules); do modprobe "$module" || echo "no module $module"; done
/lib/systemd/systemd-udevd --daemon
# iscsid may ask for as much memory to receive in as it is told to: see iscsid.conf.
echo 16777216 >/proc/sys/net/core/rmem_max
ip link set lo up
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2
ip link set eth1 up
ip addr add 10.0.3.15/24 dev eth1
mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=262144 machine /machine
for folder in dev proc sys run; do mount --bind /$folder /machine/$folder; done
iscsid

port=
for name in /sys/class/virtio-ports/*/name; do
    if [ "$(cat "$name")" = arrayd.lab ]; then port=/dev/$(basename "$(dirname "$name")"); fi
done
if [ -z "$port" ]; then echo "init: no control port"; poweroff -f; fi
exec 3<>"$port"
printf 'ready\n' >&3
while read -r id seconds script <&3; do
    echo "$script" | base64 -d >/run/command
    timeout -s KILL "$seconds" sh /run/command >/run/output 2>&1 </dev/null 3>&-
    status=$?
    printf '%s %s %s\n' "$id" "$status" "$(stat -c %s /run/output)" >&3
    cat /run/output >&3
done
echo "init: the control port ended"
poweroff -f
