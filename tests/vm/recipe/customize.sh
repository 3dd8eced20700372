#!/bin/bash
# Runs once everything is unpacked; $1 is the guest's root. See build.sh.
set -eu

root=$1
recipe=$(cd "$(dirname "$0")" && pwd)

kernel=$(chroot "$root" apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p')
(cd "$root/tmp" && chroot "$root" sh -c "cd /tmp && apt-get -qq -o APT::Sandbox::User=root download $kernel")
dpkg-deb --fsys-tarfile "$root"/tmp/linux-image-*.deb | tar -x -C "$root" --keep-directory-symlink \
    --exclude='*/drivers/gpu' --exclude='*/drivers/media' --exclude='*/drivers/infiniband' --exclude='*/sound' \
    --exclude='*/drivers/net/ethernet' --exclude='*/drivers/net/wireless' --exclude='*/drivers/staging' \
    --exclude='*/drivers/scsi' --exclude='*/drivers/usb' --exclude='*/drivers/iio' --exclude='*/drivers/hwmon' \
    --exclude='./usr/share'
rm "$root"/tmp/linux-image-*.deb
chroot "$root" depmod "$(basename "$root"/usr/lib/modules/*)"

echo k3s-node >"$root/etc/hostname"
echo '127.0.0.1 localhost k3s-node' >"$root/etc/hosts"
echo 6b337377617463680000000000000001 >"$root/etc/machine-id"
mkdir -p "$root/var/log/journal" # kept over a reboot
install -m 755 "$recipe/agent.py" "$root/usr/local/sbin/guest-agent"
install -m 644 "$recipe/guest-agent.service" "$root/etc/systemd/system/"
systemctl --root="$root" --quiet enable guest-agent.service
systemctl --root="$root" --quiet disable prometheus.service prometheus-alertmanager.service
for unit in getty@tty1.service getty.target \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer; do
    systemctl --root="$root" --quiet mask "$unit"
done
