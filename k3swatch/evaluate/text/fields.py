"""What a load means in nft's words: header fields by offset, meta and ct keys. Tables of (name, datatype)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from k3swatch.evaluate.text import render, symbols
from k3swatch.evaluate.text.render import Render

LINK, NETWORK, TRANSPORT, INNER = range(4)  # enum nft_payload_bases


@dataclass(frozen=True, slots=True)
class Field:
    """`length` bytes at `offset` of a header."""

    name: str
    offset: int
    length: int
    render: Render

    @property
    def is_address(self) -> bool:
        """Whether a shorter load, or a mask of leading ones, is a prefix."""
        return self.render in (render.ipv4, render.ipv6)


def _header(name: str, *fields: tuple[str, int, int, Render]) -> tuple[Field, ...]:
    return tuple(Field(f"{name} {field}", *rest) for field, *rest in fields)  # type: ignore[arg-type]


def _ports(name: str, *more: tuple[str, int, int, Render]) -> tuple[Field, ...]:
    return _header(name, ("sport", 0, 2, render.network), ("dport", 2, 2, render.network), *more)


IP: Final = _header(
    "ip",
    ("length", 2, 2, render.network),
    ("id", 4, 2, render.network),
    ("frag-off", 6, 2, render.network),
    ("ttl", 8, 1, render.network),
    ("protocol", 9, 1, render.protocol),
    ("checksum", 10, 2, render.network),
    ("saddr", 12, 4, render.ipv4),
    ("daddr", 16, 4, render.ipv4),
)
IP6: Final = _header(
    "ip6",
    ("length", 4, 2, render.network),
    ("nexthdr", 6, 1, render.protocol),
    ("hoplimit", 7, 1, render.network),
    ("saddr", 8, 16, render.ipv6),
    ("daddr", 24, 16, render.ipv6),
)
ETHER: Final = _header(
    "ether",
    ("daddr", 0, 6, render.ether),
    ("saddr", 6, 6, render.ether),
    ("type", 12, 2, render.ethertype),
)
TH: Final = _ports("th")
BY_PROTOCOL: Final[dict[int, tuple[Field, ...]]] = {
    1: _header(
        "icmp",
        ("type", 0, 1, render.symbol(symbols.ICMP_TYPES)),
        ("code", 1, 1, render.network),
        ("checksum", 2, 2, render.network),
        ("id", 4, 2, render.network),
        ("sequence", 6, 2, render.network),
    ),
    6: _ports(
        "tcp",
        ("sequence", 4, 4, render.network),
        ("ackseq", 8, 4, render.network),
        ("flags", 13, 1, render.tcp_flags),
        ("window", 14, 2, render.network),
        ("checksum", 16, 2, render.network),
        ("urgptr", 18, 2, render.network),
    ),
    17: _ports("udp", ("length", 4, 2, render.network), ("checksum", 6, 2, render.network)),
    33: _ports("dccp"),
    50: _header("esp", ("spi", 0, 4, render.network)),
    51: _header("ah", ("spi", 4, 4, render.network)),
    58: _header(
        "icmpv6",
        ("type", 0, 1, render.symbol(symbols.ICMPV6_TYPES)),
        ("code", 1, 1, render.network),
        ("checksum", 2, 2, render.network),
        ("id", 4, 2, render.network),
        ("sequence", 6, 2, render.network),
    ),
    132: _ports("sctp", ("vtag", 4, 4, render.network), ("checksum", 8, 4, render.network)),
    136: _ports("udplite", ("checksum", 6, 2, render.network)),
}

# enum nft_meta_keys -> name and datatype. nft prints the first group without `meta`.
META: Final[dict[int, tuple[str, Render]]] = {
    4: ("iif", render.host),
    5: ("oif", render.host),
    6: ("iifname", render.interface),
    7: ("oifname", render.interface),
    21: ("iifgroup", render.host),
    22: ("oifgroup", render.host),
    0: ("meta length", render.host),
    1: ("meta protocol", render.ethertype),
    2: ("meta priority", render.tc_handle),
    3: ("meta mark", render.mark),
    8: ("meta iiftype", render.device_type),
    9: ("meta oiftype", render.device_type),
    10: ("meta skuid", render.host),
    11: ("meta skgid", render.host),
    12: ("meta nftrace", render.network),
    13: ("meta rtclassid", render.host),
    14: ("meta secmark", render.mark),
    15: ("meta nfproto", render.nfproto),
    16: ("meta l4proto", render.protocol),
    17: ("meta ibrname", render.interface),
    18: ("meta obrname", render.interface),
    19: ("meta pkttype", render.pkttype),
    20: ("meta cpu", render.host),
    23: ("meta cgroup", render.host),
    24: ("meta random", render.network),
    25: ("meta ipsec", render.presence),
    26: ("meta iifkind", render.quoted),
    27: ("meta oifkind", render.quoted),
    28: ("meta ibrpvid", render.host),
    29: ("meta ibrvproto", render.ethertype),
    30: ("meta time", render.host),
    31: ("meta day", render.day),
    32: ("meta hour", render.hour),
    33: ("meta sdif", render.host),
    34: ("meta sdifname", render.interface),
    35: ("meta broute", render.host),
}
META_PROTOCOL, META_IIFTYPE, META_NFPROTO, META_L4PROTO = 1, 8, 15, 16

# enum nft_ct_keys -> name and datatype
CT: Final[dict[int, tuple[str, Render]]] = {
    0: ("state", render.ct_state),
    1: ("direction", render.direction),
    2: ("status", render.ct_status),
    3: ("mark", render.mark),
    4: ("secmark", render.mark),
    5: ("expiration", render.duration),
    6: ("helper", render.quoted),
    7: ("l3proto", render.nfproto),
    8: ("saddr", render.address),
    9: ("daddr", render.address),
    10: ("protocol", render.protocol),
    11: ("proto-src", render.network),
    12: ("proto-dst", render.network),
    13: ("label", render.hexadecimal),
    14: ("packets", render.host),
    15: ("bytes", render.host),
    16: ("avgpkt", render.host),
    17: ("zone", render.host),
    18: ("event", render.host),
    19: ("ip saddr", render.ipv4),
    20: ("ip daddr", render.ipv4),
    21: ("ip6 saddr", render.ipv6),
    22: ("ip6 daddr", render.ipv6),
    23: ("id", render.host),
}

# Fields narrower than a byte, or across two: (header, offset, length, mask) -> name, bits to shift, datatype
BIT_FIELDS: Final[dict[tuple[str, int, int, int], tuple[str, int, Render]]] = {
    ("ip", 0, 1, 0xF0): ("ip version", 4, render.network),
    ("ip", 0, 1, 0x0F): ("ip hdrlength", 0, render.network),
    ("ip", 1, 1, 0xFC): ("ip dscp", 2, render.dscp),
    ("ip", 1, 1, 0x03): ("ip ecn", 0, render.symbol(symbols.ECNS)),
    ("ip6", 0, 1, 0xF0): ("ip6 version", 4, render.network),
    ("ip6", 0, 2, 0x0FC0): ("ip6 dscp", 6, render.dscp),
    ("ip6", 1, 1, 0x30): ("ip6 ecn", 4, render.symbol(symbols.ECNS)),
    ("tcp", 12, 1, 0xF0): ("tcp doff", 4, render.network),
}


def covered(header: tuple[Field, ...], offset: int, length: int) -> tuple[Field, ...]:
    """The fields that lie end to end from `offset` over `length` bytes; a prefix of one address field; or none.

    nft merges neighbouring comparisons into one wider load, so one load can be several fields.
    """
    found: list[Field] = []
    end = offset + length
    for field in header:
        if field.offset != offset or offset >= end:
            continue
        if field.offset + field.length <= end:
            found.append(field)
            offset += field.length
        elif not found and field.is_address:
            return (Field(field.name, offset, length, field.render),)
    return tuple(found) if offset == end else ()
