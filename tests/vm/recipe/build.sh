#!/bin/bash
# Makes a guest from Debian's archive: DIRECTORY/root.img (ext4), vmlinuz, initrd. As root, in a minute or two.
# usage: build.sh SUITE FLAVOUR DIRECTORY
#
# A flavour is a list of packages beside those of packages.stock: packages.FLAVOUR.
#
# The kernel is the stock one. It is unpacked, not installed: no initramfs is made of it, and the drivers that a
# virtual machine cannot have are left out. Where packages come from is the business of this machine's apt.
set -eu

suite=$1 flavour=$2 out=$3
recipe=$(cd "$(dirname "$0")" && pwd)
root=$out/root

mapfile -t packages < <(for name in stock "$flavour"; do grep -v '^#' "$recipe/packages.$name"; done | tr ' ' '\n' | sort -u)

# the same mirror as this machine's, where it has one for Debian
# shellcheck disable=SC2016 # apt-get expands it, not the shell
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' |
    sort -u | head -n 1)

rm -rf "$root"
mmdebstrap --quiet --variant=minbase --include="$(IFS=,; echo "${packages[*]}")" \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook="$recipe/customize.sh" \
    "$suite" "$root" ${mirror:+"$mirror"}

version=$(basename "$root"/usr/lib/modules/*)
mv "$root"/boot/vmlinuz-* "$out/vmlinuz"

# An initrd of one shell and the modules that find the disk: in a virtual machine it needs no more.
initrd=$(mktemp -d)
trap 'rm -rf "$initrd" "$root"' EXIT
mkdir -p "$initrd"/{bin,dev,proc,root,modules}
cp "$root/bin/busybox" "$initrd/bin/"
install -m 755 "$recipe/init" "$initrd/init"
number=100
chroot "$root" modprobe -S "$version" -a --show-depends virtio_pci virtio_blk ext4 virtio_console virtio_rng |
    awk '$1 == "insmod" && !seen[$2]++ { print $2 }' |
    while read -r module; do
        number=$((number + 1)) name=$(basename "$module")
        case $name in
        *.xz) xz -dc "$root$module" >"$initrd/modules/$number-${name%.xz}" ;;
        *) cp "$root$module" "$initrd/modules/$number-$name" ;;
        esac
    done
(cd "$initrd" && find . | cpio --quiet -o -H newc | gzip -1) >"$out/initrd"

truncate -s 4G "$out/root.img"
mke2fs -q -t ext4 -d "$root" "$out/root.img"
