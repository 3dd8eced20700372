"""xtables matches and targets as values: what their blobs say, named after `uapi/linux/netfilter/xt_*.h`.

Integers are host values (ports as numbers), addresses are network-order bytes of 4 or 16.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Comment:
    """xt_comment: always matches. Hostile text."""

    text: str


@dataclass(frozen=True, slots=True)
class Ports:
    """xt_tcp / xt_udp: source and destination port ranges (inclusive), TCP flags and option; inv as in xt_tcp."""

    protocol: int
    source: tuple[int, int] = (0, 65535)
    destination: tuple[int, int] = (0, 65535)
    invert_source: bool = False
    invert_destination: bool = False
    flags_mask: int = 0
    flags_compare: int = 0
    invert_flags: bool = False
    option: int = 0
    invert_option: bool = False


@dataclass(frozen=True, slots=True)
class Multiport:
    """xt_multiport: `which` 0 source, 1 destination, 2 either."""

    which: int
    ranges: tuple[tuple[int, int], ...]
    invert: bool = False


@dataclass(frozen=True, slots=True)
class Addrtype:
    """xt_addrtype: masks of 1 << RTN_*; 0 means not asked. `limit_in`/`limit_out`: only that interface's addresses."""

    source: int
    destination: int
    invert_source: bool = False
    invert_destination: bool = False
    limit_in: bool = False
    limit_out: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """xt_mark and xt_connmark matches: (mark & mask) == value."""

    value: int
    mask: int
    invert: bool = False
    conntrack: bool = False  # the connection's mark instead of the packet's


@dataclass(frozen=True, slots=True)
class SetMark:
    """MARK target: mark = (mark & ~clear) ^ flip. CONNMARK (`conntrack`): op 0 set, 1 save to ct, 2 restore from ct."""

    clear: int
    flip: int
    conntrack: bool = False
    op: int = 0
    nfmask: int = 0xFFFFFFFF
    shift: int = 0  # left when positive


@dataclass(frozen=True, slots=True)
class Statistic:
    """xt_statistic: mode 0 random (probability 0..1), 1 nth (one in `every`, starting at `packet`)."""

    mode: int
    invert: bool
    probability: float = 0.0
    every: int = 0
    packet: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """xt_state / xt_conntrack's state test alone: bits 1 INVALID, 2 << IP_CT_*; NEW is 8, ESTABLISHED 2, RELATED 4.

    Bits are xt_conntrack's whatever it came as: SNAT 64, DNAT 128, UNTRACKED 256.
    """

    mask: int
    invert: bool = False


@dataclass(frozen=True, slots=True)
class Conntrack:
    """xt_conntrack: `match` and `invert` are XT_CONNTRACK_* bits; fields hold where their bit is in `match`."""

    match: int
    invert: int
    state_mask: int = 0
    status_mask: int = 0
    protocol: int = 0
    origsrc: tuple[bytes, bytes] = (b"", b"")  # address, mask
    origdst: tuple[bytes, bytes] = (b"", b"")
    replsrc: tuple[bytes, bytes] = (b"", b"")
    repldst: tuple[bytes, bytes] = (b"", b"")
    origsrc_port: tuple[int, int] = (0, 0)
    origdst_port: tuple[int, int] = (0, 0)
    replsrc_port: tuple[int, int] = (0, 0)
    repldst_port: tuple[int, int] = (0, 0)
    expires: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Owner:
    """xt_owner: `match` and `invert` are XT_OWNER_* bits (1 uid, 2 gid, 4 socket)."""

    match: int
    invert: int
    uid: tuple[int, int] = (0, 0)
    gid: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class IpRange:
    """xt_iprange: inclusive ranges; None when not asked."""

    source: tuple[bytes, bytes] | None = None
    destination: tuple[bytes, bytes] | None = None
    invert_source: bool = False
    invert_destination: bool = False


@dataclass(frozen=True, slots=True)
class PhysDev:
    """xt_physdev: bridge ports; `invert` and `bitmask` are XT_PHYSDEV_OP_*."""

    physin: str
    physout: str
    invert: int
    bitmask: int


@dataclass(frozen=True, slots=True)
class Environment:
    """A match that is understood but depends on more than the packet: recent, limit, hashlimit, connlimit, set, ...

    `words` says it for a person (`recent "ssh" seen in 60s`). It may hold or not; neither is a surprise.
    `holds`: what it answers by its nature, whatever the packet (`recent --set` always holds); None: it depends.
    """

    words: str
    holds: bool | None = None


@dataclass(frozen=True, slots=True)
class PktType:
    """xt_pkttype: PACKET_* of `uapi/linux/if_packet.h` (0 to this host, 1 broadcast, 2 multicast, 3 other host)."""

    type: int
    invert: bool = False


ICMP, ICMPV6 = 1, 58  # IPPROTO_*
ANY_TYPE = 255  # of ICMP


@dataclass(frozen=True, slots=True)
class Icmp:
    """ipt_icmp and ip6t_icmp: a type (or ANY_TYPE), a range of codes. `protocol` is ICMP or ICMPV6."""

    protocol: int
    type: int
    codes: tuple[int, int] = (0, 255)
    invert: bool = False


@dataclass(frozen=True, slots=True)
class RpFilter:
    """xt_rpfilter: holds when the route back leaves by the interface the packet came in on; flags XT_RPFILTER_*."""

    flags: int

    @property
    def invert(self) -> bool:
        """XT_RPFILTER_INVERT: holds when there is no such route."""
        return bool(self.flags & 8)


@dataclass(frozen=True, slots=True)
class XtSocket:
    """xt_socket: is there a local socket for the packet? flags 1 transparent only, 2 wildcard too, 4 restore mark."""

    flags: int


@dataclass(frozen=True, slots=True)
class IpHeader:
    """The ipt_ip / ip6t_ip6 part of a legacy rule: addresses with masks, interfaces with '+', protocol, invert bits."""

    family: int
    source: tuple[bytes, bytes]
    destination: tuple[bytes, bytes]
    in_interface: str = ""
    out_interface: str = ""
    protocol: int = 0
    flags: int = 0
    invert: int = 0


@dataclass(frozen=True, slots=True)
class EtherIp:
    """ebt_ip and ebt_ip6: addresses with masks, protocol, ports; `asked` and `inverted` are EBT_IP_* (1 source, 2
    destination, 8 protocol, 16 source port, 32 destination port). `rest` names what else is asked (TOS, ICMP).
    """

    source: tuple[bytes, bytes]
    destination: tuple[bytes, bytes]
    protocol: int
    sport: tuple[int, int]
    dport: tuple[int, int]
    asked: int
    inverted: int
    rest: str = ""


@dataclass(frozen=True, slots=True)
class EtherNat:
    """ebtables' `dnat` and `snat`, which overwrite an address of the frame with `mac`, and `redirect`, which makes it
    one to the bridge; then the verdict `code`.
    """

    target: str
    mac: bytes
    code: int


@dataclass(frozen=True, slots=True)
class EtherMark:
    """ebtables' `mark`: mark = (mark & ~clear) ^ flip, bits in both being set; then the verdict `code`."""

    clear: int
    flip: int
    code: int


@dataclass(frozen=True, slots=True)
class NatRange:
    """DNAT, SNAT, REDIRECT, MASQUERADE, NETMAP: struct nf_nat_range2 whatever revision it came as.

    `target` is the xt target's name; flags are NF_NAT_RANGE_* (1 map ips, 2 proto specified, 4 proto random,
    8 persistent, 16 random fully, 32 proto offset, 64 netmap).
    """

    target: str
    flags: int
    addr: tuple[bytes, bytes] = (b"", b"")
    port: tuple[int, int] = (0, 0)
    base_port: int = 0


@dataclass(frozen=True, slots=True)
class XtTproxy:
    """TPROXY target: local address (empty or zero: the interface's own) and port, and the mark it sets."""

    addr: bytes
    port: int
    mark_mask: int
    mark_value: int


@dataclass(frozen=True, slots=True)
class XtReject:
    """REJECT target."""

    how: int


@dataclass(frozen=True, slots=True)
class XtNotrack:
    """NOTRACK, or CT with --notrack."""


@dataclass(frozen=True, slots=True)
class XtZone:
    """CT with --zone, for both directions; `words` say it, and its helper."""

    zone: int
    words: str


@dataclass(frozen=True, slots=True)
class XtQueue:
    """NFQUEUE target: a program in user space decides; `bypass`: accept when none listens."""

    num: int
    total: int = 1
    bypass: bool = False


@dataclass(frozen=True, slots=True)
class XtSynproxy:
    """SYNPROXY target: the kernel answers the SYN itself, then opens the connection to the destination."""


@dataclass(frozen=True, slots=True)
class AnyMark:
    """A target that sets the packet's mark to what the rule does not tell: HMARK, SET --map-mark."""

    words: str


@dataclass(frozen=True, slots=True)
class XtNpt:
    """DNPT and SNPT targets: rewrite the IPv6 prefix of the destination (source), without conntrack."""

    target: str
    source: tuple[bytes, int]  # prefix, its length
    destination: tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class XtStandard:
    """The standard target of a legacy rule: a verdict code, or a jump/goto to `chain`."""

    code: int
    chain: str | None = None


@dataclass(frozen=True, slots=True)
class Harmless:
    """A target that neither ends the walk nor changes what decides: LOG, NFLOG, TRACE, TCPMSS, CT helper, ..."""

    words: str


XtSpec = (
    Comment
    | Ports
    | Multiport
    | Addrtype
    | Mark
    | SetMark
    | Statistic
    | State
    | Conntrack
    | Owner
    | IpRange
    | PhysDev
    | Environment
    | PktType
    | Icmp
    | RpFilter
    | XtSocket
    | IpHeader
    | EtherIp
    | EtherNat
    | EtherMark
    | NatRange
    | XtTproxy
    | XtReject
    | XtNotrack
    | XtZone
    | XtQueue
    | XtSynproxy
    | AnyMark
    | XtNpt
    | XtStandard
    | Harmless
)
