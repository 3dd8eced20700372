"""addrtype, iprange, owner and physdev: who sends, from where, to what kind of address."""

from __future__ import annotations

from struct import unpack_from

from k3swatch.decode.xt.blob import Layouts, address, string
from k3swatch.model.xt import Addrtype, IpRange, Owner, PhysDev, XtSpec


def addrtype_v0(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_addrtype_info: only IPv4 has it."""
    source, destination, invert_source, invert_destination = unpack_from("=2H2I", info)
    return Addrtype(source, destination, bool(invert_source), bool(invert_destination))


def addrtype(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_addrtype_info_v1: `-m addrtype ! --src-type BROADCAST --dst-type LOCAL`."""
    source, destination, flags = unpack_from("=2HI", info)
    if flags & ~0x0F:
        return None
    return Addrtype(source, destination, *(bool(flags & bit) for bit in (1, 2, 4, 8)))


def iprange(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_iprange_mtinfo: `-m iprange --src-range 10.0.0.1-10.0.0.9`."""
    low, high, dlow, dhigh = (address(info[at : at + 16], nfproto) for at in (0, 16, 32, 48))
    flags = info[64]
    if flags & ~0x33:
        return None
    return IpRange(
        source=(low, high) if flags & 1 else None,
        destination=(dlow, dhigh) if flags & 2 else None,
        invert_source=bool(flags & 0x10),
        invert_destination=bool(flags & 0x20),
    )


def owner(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_owner_match_info: `-m owner --uid-owner 1000-1005`."""
    uid_low, uid_high, gid_low, gid_high, match, invert = unpack_from("=4I2B", info)
    if match & ~0x0F:
        return None
    return Owner(match, invert, uid=(uid_low, uid_high), gid=(gid_low, gid_high))


def physdev(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_physdev_info: `-m physdev --physdev-in eth0`. A final `+` stands for any rest."""
    names = [_interface(info[at : at + 16], info[at + 16 : at + 32]) for at in (0, 32)]
    if info[65] & ~0x1F:  # XT_PHYSDEV_OP_MASK
        return None
    return PhysDev(names[0], names[1], invert=info[64], bitmask=info[65])


def _interface(raw: bytes, mask: bytes) -> str:
    """One mask byte per character that must be equal; the NUL is one of them when the whole name must match."""
    name, covered = raw.split(b"\0", 1)[0], len(mask.rstrip(b"\0"))
    return string(name) if covered > len(name) or not name else string(name[:covered]) + "+"


MATCHES: Layouts = {
    ("addrtype", 0): (12, addrtype_v0),
    ("addrtype", 1): (8, addrtype),
    ("iprange", 1): (68, iprange),
    ("owner", 1): (20, owner),
    ("physdev", 0): (66, physdev),
}
