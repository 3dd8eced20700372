"""Matches and targets of ebtables, in nf_tables rules of the bridge family and in ebtables' own tables.

Structures are those of `uapi/linux/netfilter_bridge/ebt_*.h`; a target's verdict is one of EBT_ACCEPT (-1) to
EBT_RETURN (-4), in its last four bits.
"""

from __future__ import annotations

from struct import calcsize, unpack_from
from typing import Final

from k3swatch.decode.xt.blob import Layouts, Reader
from k3swatch.model.expr import Code
from k3swatch.model.xt import (
    Comment,
    Environment,
    EtherIp,
    EtherMark,
    EtherNat,
    Harmless,
    Mark,
    PktType,
    XtSpec,
)

NFPROTO_BRIDGE = 7
_CODES: Final = {-1: Code.ACCEPT, -2: Code.DROP, -3: Code.CONTINUE, -4: Code.RETURN}
_ALL = 0xFFFFFFFF
_OTHERS = 0x04 | 0x40 | 0x80  # EBT_IP_TOS (_TCLASS), _ICMP, _IGMP


def code(verdict: int) -> int | None:
    """The verdict of a target; None where there is no such."""
    return _CODES.get(verdict | ~0xF)


def _ip(length: int) -> Reader:
    """struct ebt_ip_info and ebt_ip6_info."""
    layout = f"={length}s{length}s{length}s{length}s4B4H"

    def read(info: bytes, nfproto: int) -> XtSpec | None:
        source, destination, source_mask, destination_mask, *rest = unpack_from(layout, info)
        _, protocol, asked, inverted, *ports = rest
        return EtherIp(
            (source, source_mask),
            (destination, destination_mask),
            protocol,
            (ports[0], ports[1]),
            (ports[2], ports[3]),
            asked,
            inverted,
            info[length * 4 : calcsize(layout)].hex() if asked & _OTHERS else "",
        )

    return read


def _words(words: str, holds: bool | None = None) -> Reader:
    def read(info: bytes, nfproto: int) -> XtSpec | None:
        return Environment(words, holds)

    return read


def _mark(info: bytes, nfproto: int) -> XtSpec | None:
    """struct ebt_mark_m_info; EBT_MARK_OR: any of the bits."""
    mark, mask, invert, how = unpack_from("=2Q2B", info)
    if how == 2:
        return Mark(0, mask & _ALL, not invert)
    return Mark(mark & _ALL, mask & _ALL, bool(invert)) if how == 1 else None


def _pkttype(info: bytes, nfproto: int) -> XtSpec | None:
    """struct ebt_pkttype_info."""
    return PktType(info[0], bool(info[1]))


def _limit(info: bytes, nfproto: int) -> XtSpec | None:
    """struct ebt_limit_info."""
    return Environment("ebtables limit")


def _comment(info: bytes, nfproto: int) -> XtSpec | None:
    return Comment(info.partition(b"\0")[0].decode(errors="backslashreplace"))


def _nat(target: str) -> Reader:
    """struct ebt_nat_info."""

    def read(info: bytes, nfproto: int) -> XtSpec | None:
        mac, verdict = unpack_from("=6s2xi", info)
        decided = code(verdict)
        return None if decided is None else EtherNat(target, mac, decided)

    return read


def _redirect(info: bytes, nfproto: int) -> XtSpec | None:
    """struct ebt_redirect_info."""
    decided = code(unpack_from("=i", info)[0])
    return None if decided is None else EtherNat("redirect", b"", decided)


def _set_mark(info: bytes, nfproto: int) -> XtSpec | None:
    """struct ebt_mark_t_info: what to do is in the verdict's upper bits (MARK_SET_VALUE and its siblings)."""
    mark, verdict = unpack_from("=Qi", info)
    value, decided = mark & _ALL, code(verdict)
    clear = {-16: (_ALL, value), -32: (value, value), -48: (~value & _ALL, 0), -64: (0, value)}.get(
        verdict & -16
    )
    return None if decided is None or clear is None else EtherMark(*clear, decided)


def _harmless(words: str) -> Reader:
    def read(info: bytes, nfproto: int) -> XtSpec | None:
        return Harmless(words)

    return read


MATCHES: Layouts = {
    ("ip", 0): (28, _ip(4)),
    ("ip6", 0): (76, _ip(16)),
    ("mark_m", 0): (24, _mark),
    ("pkttype", 0): (2, _pkttype),
    ("limit", 0): (32, _limit),
    ("vlan", 0): (8, _words("vlan")),
    ("comment", 0): (256, _comment),
    # of frames that carry no IP
    ("arp", 0): (52, _words("arp", False)),
    ("stp", 0): (72, _words("stp", False)),
    ("802_3", 0): (6, _words("802_3", False)),
}
TARGETS: Layouts = {
    ("dnat", 0): (12, _nat("dnat")),
    ("snat", 0): (12, _nat("snat")),
    ("redirect", 0): (4, _redirect),
    ("mark", 0): (16, _set_mark),
    ("log", 0): (36, _harmless("log")),
    ("nflog", 0): (76, _harmless("nflog")),
}
