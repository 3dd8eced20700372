"""RTM_NEWROUTE and RTM_NEWRULE -> Route, PolicyRule. Follows `uapi/linux/rtnetlink.h` and `fib_rules.h`.

What a rule asks beyond what PolicyRule tells is not dropped: it is marked `other`, and may hold or not.
"""

from __future__ import annotations

import struct
from functools import lru_cache

from k3swatch.decode.attributes import Attributes, display, walk
from k3swatch.decode.message import message
from k3swatch.errors import DecodeError
from k3swatch.model.routing import PolicyRule, Prefix, Route
from k3swatch.model.words import Family

_RTM_NEWROUTE, _RTM_NEWRULE = 24, 32
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags
_FAMILIES = {2: Family.IP, 10: Family.IP6}
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_TABLE = 1, 2, 4, 5, 6, 15

_RULE_HDR = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, res1, res2, action, flags
_FRA_DST, _FRA_SRC, _FRA_IIFNAME, _FRA_GOTO, _FRA_PRIORITY, _FRA_FWMARK = 1, 2, 3, 4, 6, 10
_FRA_SUPPRESS_PREFIXLEN, _FRA_TABLE, _FRA_FWMASK, _FRA_OIFNAME, _FRA_UID_RANGE = 14, 15, 16, 17, 20
_FRA_IP_PROTO, _FRA_SPORT_RANGE, _FRA_DPORT_RANGE = 22, 23, 24
_FRA_SUPPRESS_IFGROUP, _FRA_PAD, _FRA_PROTOCOL = 13, 18, 21
_FRA_FLOW = 11  # realms: set by the rule, not asked
_FRA_SPORT_MASK, _FRA_DPORT_MASK = 28, 29  # of one port, since 6.13: all ones where nobody masks
_INVERT = 2  # FIB_RULE_INVERT
_UNSET = 0xFFFFFFFF
_KNOWN = {
    _FRA_DST, _FRA_SRC, _FRA_IIFNAME, _FRA_GOTO, _FRA_PRIORITY, _FRA_FWMARK, _FRA_SUPPRESS_PREFIXLEN, _FRA_TABLE,
    _FRA_FWMASK, _FRA_OIFNAME, _FRA_UID_RANGE, _FRA_IP_PROTO, _FRA_SPORT_RANGE, _FRA_DPORT_RANGE, _FRA_PAD,
    _FRA_PROTOCOL, _FRA_FLOW,
}  # fmt: skip


def decode_route(raw: bytes) -> Route | None:
    """One route; None for a family of no interest (multicast routing, MPLS)."""
    found = message(raw)
    if found.type != _RTM_NEWROUTE or len(found.body) < _RTMSG.size:
        raise DecodeError(f"route: message of type {found.type} with {len(found.body)} bytes")
    return _route(bytes(found.body))


@lru_cache(maxsize=8192)  # they hardly ever change
def _route(body: bytes) -> Route | None:
    number, length, source, _, table, _, _, kind, _ = _RTMSG.unpack_from(body)
    family = _FAMILIES.get(number)
    if family is None:
        return None
    attributes = Attributes(body[_RTMSG.size :], "route")
    return Route(
        family,
        _u32(attributes, _RTA_TABLE, table),
        _prefix(attributes, _RTA_DST, length, family, "route"),
        kind,
        _u32(attributes, _RTA_OIF, 0),
        attributes.raw(_RTA_GATEWAY) if _RTA_GATEWAY in attributes else b"",
        _u32(attributes, _RTA_PRIORITY, 0),
        _prefix(attributes, _RTA_SRC, source, family, "route") if source else None,
    )


def decode_policy(raw: bytes) -> PolicyRule | None:
    """One policy rule; None for a family of no interest."""
    found = message(raw)
    if found.type != _RTM_NEWRULE or len(found.body) < _RULE_HDR.size:
        raise DecodeError(f"policy rule: message of type {found.type} with {len(found.body)} bytes")
    return _policy(bytes(found.body))


@lru_cache(maxsize=1024)
def _policy(body: bytes) -> PolicyRule | None:
    number, to, source, tos, table, _, _, action, flags = _RULE_HDR.unpack_from(body)
    family = _FAMILIES.get(number)
    if family is None:
        return None
    where = "policy rule"
    attributes = Attributes(body[_RULE_HDR.size :], where)
    kinds = {kind for kind, _ in walk(body, where, _RULE_HDR.size)}
    mark = _u32(attributes, _FRA_FWMARK, 0)
    suppress = _u32(attributes, _FRA_SUPPRESS_PREFIXLEN, _UNSET)
    group = _u32(attributes, _FRA_SUPPRESS_IFGROUP, _UNSET)
    unknown = kinds - _KNOWN - ({_FRA_SUPPRESS_IFGROUP} if group == _UNSET else set())
    whole = {
        kind for kind in (_FRA_SPORT_MASK, _FRA_DPORT_MASK) if attributes.raw_or_empty(kind) == b"\xff\xff"
    }
    unknown -= whole
    return PolicyRule(
        family,
        _u32(attributes, _FRA_PRIORITY, 0),
        action,
        _u32(attributes, _FRA_TABLE, table),
        _prefix(attributes, _FRA_SRC, source, family, where) if source else None,
        _prefix(attributes, _FRA_DST, to, family, where) if to else None,
        mark,
        _u32(attributes, _FRA_FWMASK, _UNSET if mark else 0),
        display(attributes.raw(_FRA_IIFNAME)) if _FRA_IIFNAME in attributes else "",
        display(attributes.raw(_FRA_OIFNAME)) if _FRA_OIFNAME in attributes else "",
        attributes.raw(_FRA_IP_PROTO)[0] if attributes.raw_or_empty(_FRA_IP_PROTO) else 0,
        _pair(attributes, _FRA_SPORT_RANGE, "=HH"),
        _pair(attributes, _FRA_DPORT_RANGE, "=HH"),
        _pair(attributes, _FRA_UID_RANGE, "=II"),
        _u32(attributes, _FRA_GOTO, 0),
        -1 if suppress == _UNSET else suppress,
        bool(flags & _INVERT),
        bool(tos or unknown),
    )


def _u32(attributes: Attributes, kind: int, default: int) -> int:
    value = attributes.raw_or_empty(kind)
    return int(struct.unpack("=I", value)[0]) if len(value) == 4 else default


def _pair(attributes: Attributes, kind: int, layout: str) -> tuple[int, int] | None:
    value = attributes.raw_or_empty(kind)
    if len(value) != struct.calcsize(layout):
        return None
    low, high = struct.unpack(layout, value)
    return low, high


def _prefix(attributes: Attributes, kind: int, length: int, family: Family, where: str) -> Prefix:
    bits = family.length * 8
    if length > bits:
        raise DecodeError(f"{where}: prefix of {length} bits in family {family}")
    value = attributes.raw_or_empty(kind)
    if value and len(value) != family.length:
        raise DecodeError(f"{where}: address of {len(value)} bytes in family {family}")
    low = int.from_bytes(value) >> (bits - length) << (bits - length)
    return Prefix(low, low | (1 << (bits - length)) - 1, length)
