#!/bin/sh
# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
#
# The guest's only process: says on the serial console what hardware it was given, checks what it knows how to check, is ready.
# busybox ash; modules in load order in /modules/order.
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
while read -r m; do insmod "/modules/$m" 2>/dev/null; done < /modules/order
exec </dev/null >/dev/ttyS0 2>&1
say() { echo "accelsched-guest: $*"; }
# What comes from outside may hold anything: one line, printable, short.
clean() { head -n 1 | tr -cd ' -~' | cut -c 1-200; }
echo; say "kernel $(uname -r), up $(cut -d' ' -f1 /proc/uptime) s"

# Registers through the device's own resource file: /dev/mem would need iomem=relaxed on the kernel's command line.
register() { rm -f /dev/mem; ln -s "$1/resource0" /dev/mem; shift; devmem "$@"; }

# QEMU's edu device: +0 its id, +4 gives back the bitwise NOT of what was written, +8 computes a factorial.
check_edu() {
  echo 1 > "$2/enable"
  id=$(register "$2" 0 32); register "$2" 4 32 0x12345678; live=$(register "$2" 4 32)
  register "$2" 8 32 5; sleep 1; say "edu $1 id=$id live=$live factorial5=$(register "$2" 8 32)"
}

# The kernel's mtty sample: a PCI serial card that echoes what it is sent.
check_mtty() {
  for _ in $(seq 20); do tty=$(ls "$2/tty" 2>/dev/null | head -n 1); [ -z "$tty" ] || break; sleep 1; done
  [ -n "$tty" ] || { say "mtty $1 has no tty"; return; }
  stty -F "/dev/$tty" raw -echo -crtscts clocal 9600
  (timeout 20 head -c 5 < "/dev/$tty" > /echoed) & reader=$!; sleep 1; printf hello > "/dev/$tty"; wait $reader
  say "mtty $1 tty=$tty echoed=$(clean < /echoed)"
}

# Below sysfs the disk is called by its path, nvme0c0n1, when the controller is one of several to the same disk.
check_nvme() {
  for _ in $(seq 20); do
    disk=$(ls -d "$2"/nvme/nvme*/nvme*n1 2>/dev/null | head -n 1 | sed 's|.*/||; s/c[0-9]*n/n/')
    [ ! -b "/dev/$disk" ] || break
    sleep 1
  done
  say "nvme $1 disk=$disk read=$(head -c 16 "/dev/$disk" 2>/dev/null | tr '\0' '\n' | clean)"
}

seen=" "
# Say what has come since the last look, and what has gone.
look() {
  for d in /sys/bus/pci/devices/*; do
    address=${d##*/}
    case $seen in *" $address "*) continue ;; esac
    seen="$seen$address "
    id=$(cat "$d/vendor"):$(cat "$d/device"); id=$(echo "$id" | sed 's/0x//g')
    say "pci $address $id class=$(cat "$d/class")"
    case $id in
      1234:11e8) check_edu "$address" "$d" ;;
      4348:3253) check_mtty "$address" "$d" ;;
      1b36:0010) check_nvme "$address" "$d" ;;
    esac
  done
  for address in $seen; do
    [ ! -e "/sys/bus/pci/devices/$address" ] || continue
    seen="${seen%% $address *} ${seen#* $address }"
    say "pci $address gone"
  done
}
# Use what can be used as often as one likes.
again() {
  for address in $seen; do
    d=/sys/bus/pci/devices/$address
    case $(cat "$d/vendor" "$d/device" 2>/dev/null | tr -d '\n') in 0x43480x3253) check_mtty "$address" "$d" ;; esac
  done
}
look

mkdir -p /root /config
if [ -b /dev/vda ] && mount -t ext2 /dev/vda /root 2>/dev/null; then
  boots=$(( $(cat /root/boots 2>/dev/null | tr -cd 0-9) + 1 )); echo $boots > /root/boots; sync
  say "root vda $(( $(cat /sys/block/vda/size) / 2048 )) MiB, boot $boots"
  umount /root
elif [ -b /dev/vda ]; then say "root vda $(( $(cat /sys/block/vda/size) / 2048 )) MiB, not ours"
else say "root none"; fi

for _ in 1 2 3 4 5 6; do  # a CD-ROM takes a moment to be there
  drive=$(findfs LABEL=config-2 2>/dev/null) && break
  ls /dev/sr* /dev/sd* >/dev/null 2>&1 || break
  sleep 0.5
done
if [ -n "$drive" ] && { mount -t iso9660 -o ro "$drive" /config || mount -t vfat -o ro "$drive" /config; } 2>/dev/null; then
  hostname=$(sed -n 's/.*"hostname": *"\([^"]*\)".*/\1/p' /config/openstack/latest/meta_data.json 2>/dev/null | clean)
  say "config-drive ${drive##*/} hostname=$hostname"
  [ -z "$hostname" ] || hostname "$hostname"
  [ ! -f /config/openstack/latest/user_data ] || asked=$(clean < /config/openstack/latest/user_data)
  [ -z "$asked" ] || say "user-data $asked"
  umount /config
else say "config-drive none"; fi

# The power button (a clean stop asked for from outside) ends the machine.
mkdir -p /etc/acpi/PWRF /var/run
printf '#!/bin/sh\necho "accelsched-guest: power button" > /dev/ttyS0\nsync\npoweroff -f\n' > /etc/acpi/PWRF/00000080
chmod 755 /etc/acpi/PWRF/00000080
acpid -d >/dev/null 2>&1 &
say "up $(cut -d' ' -f1 /proc/uptime) s"
say ready
# What is plugged in or goes is told; and, for who wants to see it run on, its uptime and what its devices answer.
while [ "$asked" = "#tick" ]; do sleep 1; look; again; say "tick at $(cut -d' ' -f1 /proc/uptime) s"; done
while :; do sleep 2; look; done
