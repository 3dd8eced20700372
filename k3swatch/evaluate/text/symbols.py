"""Words nft uses for numbers: the symbol tables of its datatypes (`src/datatype.c`, `src/ct.c`, `src/proto.c`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

PROTOCOLS: Final[dict[int, str]] = {
    1: "icmp",
    2: "igmp",
    6: "tcp",
    17: "udp",
    33: "dccp",
    41: "ipv6",
    47: "gre",
    50: "esp",
    51: "ah",
    58: "ipv6-icmp",
    108: "comp",
    132: "sctp",
    136: "udplite",
}
NFPROTOS: Final[dict[int, str]] = {2: "ipv4", 10: "ipv6"}
ETHERTYPES: Final[dict[int, str]] = {0x0800: "ip", 0x0806: "arp", 0x86DD: "ip6", 0x8100: "8021q"}
PKTTYPES: Final[dict[int, str]] = {0: "host", 1: "broadcast", 2: "multicast", 3: "other"}
ADDRTYPES: Final[tuple[str, ...]] = (
    "unspec",
    "unicast",
    "local",
    "broadcast",
    "anycast",
    "multicast",
    "blackhole",
    "unreachable",
    "prohibit",
    "throw",
    "nat",
    "xresolve",
)
DEVICE_TYPES: Final[dict[int, str]] = {1: "ether", 512: "ppp", 772: "loopback"}
DAYS: Final[dict[int, str]] = {
    0: '"Sunday"',
    1: '"Monday"',
    2: '"Tuesday"',
    3: '"Wednesday"',
    4: '"Thursday"',
    5: '"Friday"',
    6: '"Saturday"',
}
ECNS: Final[dict[int, str]] = {0: "not-ect", 1: "ect1", 2: "ect0", 3: "ce"}

# bits, in the order nft prints them
CT_STATES: Final[dict[int, str]] = {1: "invalid", 2: "established", 4: "related", 8: "new", 64: "untracked"}
CT_STATUSES: Final[dict[int, str]] = {
    1: "expected",
    2: "seen-reply",
    4: "assured",
    8: "confirmed",
    16: "snat",
    32: "dnat",
    512: "dying",
}
TCP_FLAGS: Final[dict[int, str]] = {
    1: "fin",
    2: "syn",
    4: "rst",
    8: "psh",
    16: "ack",
    32: "urg",
    64: "ecn",
    128: "cwr",
}
NAT_FLAGS: Final[dict[int, str]] = {4: "random", 16: "fully-random", 8: "persistent"}

ICMP_TYPES: Final[dict[int, str]] = {
    0: "echo-reply",
    3: "destination-unreachable",
    4: "source-quench",
    5: "redirect",
    8: "echo-request",
    9: "router-advertisement",
    10: "router-solicitation",
    11: "time-exceeded",
    12: "parameter-problem",
    13: "timestamp-request",
    14: "timestamp-reply",
    15: "info-request",
    16: "info-reply",
    17: "address-mask-request",
    18: "address-mask-reply",
}
ICMPV6_TYPES: Final[dict[int, str]] = {
    1: "destination-unreachable",
    2: "packet-too-big",
    3: "time-exceeded",
    4: "parameter-problem",
    128: "echo-request",
    129: "echo-reply",
    130: "mld-listener-query",
    131: "mld-listener-report",
    132: "mld-listener-done",
    133: "nd-router-solicit",
    134: "nd-router-advert",
    135: "nd-neighbor-solicit",
    136: "nd-neighbor-advert",
    137: "nd-redirect",
    138: "router-renumbering",
    141: "ind-neighbor-solicit",
    142: "ind-neighbor-advert",
    143: "mld2-listener-report",
}
DSCPS: Final[dict[int, str]] = {
    0: "cs0",
    8: "cs1",
    10: "af11",
    12: "af12",
    14: "af13",
    16: "cs2",
    18: "af21",
    20: "af22",
    22: "af23",
    24: "cs3",
    26: "af31",
    28: "af32",
    30: "af33",
    32: "cs4",
    34: "af41",
    36: "af42",
    38: "af43",
    40: "cs5",
    46: "ef",
    48: "cs6",
    56: "cs7",
}

# what `reject with` says, by icmp code; PORT_UNREACHABLE is the default and is left out
REJECT_ICMP: Final[dict[int, str]] = {
    0: "net-unreachable",
    1: "host-unreachable",
    2: "prot-unreachable",
    3: "port-unreachable",
    9: "net-prohibited",
    10: "host-prohibited",
    13: "admin-prohibited",
}
REJECT_ICMPV6: Final[dict[int, str]] = {
    0: "no-route",
    1: "admin-prohibited",
    3: "addr-unreachable",
    4: "port-unreachable",
    5: "policy-fail",
    6: "reject-route",
}
REJECT_ICMPX: Final[dict[int, str]] = {
    0: "no-route",
    1: "port-unreachable",
    2: "host-unreachable",
    3: "admin-prohibited",
}


def word(table: Sequence[str], number: int) -> str:
    """The word for a number of an enumeration that counts from 0; the number itself beyond its end."""
    return table[number] if 0 <= number < len(table) else str(number)


def bits(value: int, table: dict[int, str]) -> str:
    """`established,related`; bits without a word as one hexadecimal number at the end."""
    words = [word for bit, word in table.items() if value & bit]
    rest = value & ~sum(table)
    return ",".join([*words, f"{rest:#x}"] if rest or not words else words)
