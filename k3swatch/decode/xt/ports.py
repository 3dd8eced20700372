"""tcp, udp and multiport: ports and TCP flags. `uapi/linux/netfilter/xt_tcpudp.h`, `xt_multiport.h`."""

from __future__ import annotations

from struct import unpack_from

from k3swatch.decode.xt.blob import Layouts
from k3swatch.model.xt import Multiport, Ports, XtSpec

TCP, UDP = 6, 17
MULTI_PORTS = 15  # XT_MULTI_PORTS


def tcp(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_tcp: `-m tcp --dport 6443 --syn`."""
    source_low, source_high, low, high, option, mask, compare, inv = unpack_from("=4H4B", info)
    if inv & ~0x0F:  # XT_TCP_INV_MASK
        return None
    return Ports(
        TCP,
        source=(source_low, source_high),
        destination=(low, high),
        invert_source=bool(inv & 1),
        invert_destination=bool(inv & 2),
        flags_mask=mask,
        flags_compare=compare,
        invert_flags=bool(inv & 4),
        option=option,
        invert_option=bool(inv & 8),
    )


def udp(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_udp: `-m udp --dport 53`."""
    source_low, source_high, low, high, inv = unpack_from("=4HB", info)
    if inv & ~0x03:  # XT_UDP_INV_MASK
        return None
    return Ports(
        UDP,
        source=(source_low, source_high),
        destination=(low, high),
        invert_source=bool(inv & 1),
        invert_destination=bool(inv & 2),
    )


def multiport(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_multiport_v1: `-m multiport --dports 6443,8000:8999`. A range is two ports, the first flagged."""
    which, count = info[0], info[1]
    ports = unpack_from(f"={MULTI_PORTS}H", info, 2)
    ranged, invert = info[32:47], info[47]
    if which > 2 or count > MULTI_PORTS:
        return None
    ranges = []
    at = 0
    while at < count:
        end = at + 1 if ranged[at] else at
        if end >= count:
            return None
        ranges.append((ports[at], ports[end]))
        at = end + 1
    return Multiport(which, tuple(ranges), bool(invert))


MATCHES: Layouts = {
    ("tcp", 0): (12, tcp),
    ("udp", 0): (10, udp),
    ("multiport", 1): (48, multiport),
}
