"""RTM_NEWADDR, RTM_NEWLINK and inet_diag_msg -> LocalAddress, Interface, ListeningSocket.

Follows `uapi/linux/if_addr.h`, `if_link.h`, `inet_diag.h`. Integers are in host order but for addresses and
ports.
"""

from __future__ import annotations

import ipaddress
import struct

from k3swatch.decode.attributes import Attributes, display, walk
from k3swatch.decode.message import message
from k3swatch.errors import DecodeError
from k3swatch.model.port import Address, Interface, ListeningSocket, LocalAddress
from k3swatch.model.words import Family, Protocol

_RTM_NEWLINK, _RTM_NEWADDR, _SOCK_DIAG_BY_FAMILY = 16, 20, 20
_AF_INET, _AF_INET6 = 2, 10

_IFADDRMSG = struct.Struct("=BBBBI")  # family, prefixlen, flags, scope, index
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_F_OPTIMISTIC, _IFA_F_DEPRECATED, _IFA_F_TENTATIVE = 0x04, 0x20, 0x40

_IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_LINK, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 5, 10, 18
_IFLA_GROUP, _IFLA_XDP = 27, 43
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_IFLA_BR_NF_CALL = {36: Family.IP, 37: Family.IP6}  # ..._IPTABLES, ..._IP6TABLES
_IFLA_XDP_PROG_IDS = (4, 5, 6, 7)  # of the one program; or of those in the driver, generic, in hardware
_IFF_UP, _IFF_LOOPBACK, _IFF_NOARP = 0x1, 0x8, 0x80

# family, state, timer, retrans; sport, dport, src, dst, if, cookie; expires, rqueue, wqueue, uid, inode
_INET_DIAG_MSG = struct.Struct("=BBBB2s2s16s16sI8xIIIII")
_PORT = slice(20, 22)  # behind nlmsghdr and the first four bytes
_INET_DIAG_SKV6ONLY, _INET_DIAG_CGROUP_ID = 11, 21
_INET_DIAG_SOCKOPT, _SOCKOPT_TRANSPARENT = 22, 1 << 5  # struct inet_diag_sockopt, its first byte


def _ip(family: int, value: bytes, where: str) -> Address:
    if family == _AF_INET and len(value) >= 4:
        return ipaddress.IPv4Address(value[:4])
    if family == _AF_INET6 and len(value) >= 16:
        return ipaddress.IPv6Address(value[:16])
    raise DecodeError(f"{where}: address of {len(value)} bytes in family {family}")


def _u32(attributes: Attributes, kind: int, default: int) -> int:
    value = attributes.raw(kind) if kind in attributes else b""
    return int(struct.unpack("=I", value)[0]) if len(value) == 4 else default


def _fixed(raw: bytes, kind: int, layout: struct.Struct, where: str) -> bytes:
    """The body of a message of type `kind`, long enough for its fixed part."""
    found = message(raw)
    if found.type != kind or len(found.body) < layout.size:
        raise DecodeError(f"{where}: message of type {found.type} with {len(found.body)} bytes")
    return found.body


def decode_address(raw: bytes) -> LocalAddress:
    """One address. On a point-to-point link IFA_ADDRESS is the peer's: IFA_LOCAL is ours when it is there."""
    body = _fixed(raw, _RTM_NEWADDR, _IFADDRMSG, "address")
    family, prefix_length, flags, _, index = _IFADDRMSG.unpack_from(body)
    attributes = Attributes(body[_IFADDRMSG.size :], "address")
    value = attributes.raw(_IFA_LOCAL if _IFA_LOCAL in attributes else _IFA_ADDRESS)
    flags = _u32(attributes, _IFA_FLAGS, flags)
    return LocalAddress(
        _ip(family, value, "address"),
        index,
        prefix_length,
        deprecated=bool(flags & _IFA_F_DEPRECATED),
        tentative=flags & (_IFA_F_TENTATIVE | _IFA_F_OPTIMISTIC) == _IFA_F_TENTATIVE,
    )


def decode_link(raw: bytes) -> Interface:
    """One interface."""
    body = _fixed(raw, _RTM_NEWLINK, _IFINFOMSG, "link")
    _, kind, index, flags, _ = _IFINFOMSG.unpack_from(body)
    attributes = Attributes(body[_IFINFOMSG.size :], "link")
    info_kind, calls = "", frozenset[Family]()
    if _IFLA_LINKINFO in attributes:
        info = attributes.nested(_IFLA_LINKINFO, "info")
        info_kind = display(info.raw(_IFLA_INFO_KIND)) if _IFLA_INFO_KIND in info else ""
        if info_kind == "bridge" and _IFLA_INFO_DATA in info:
            data = info.nested(_IFLA_INFO_DATA, "bridge")
            calls = frozenset(
                family for option, family in _IFLA_BR_NF_CALL.items() if any(data.raw_or_empty(option))
            )
    return Interface(
        index,
        display(attributes.raw(_IFLA_IFNAME)),
        up=bool(flags & _IFF_UP),
        loopback=bool(flags & _IFF_LOOPBACK),
        group=_u32(attributes, _IFLA_GROUP, 0),
        kind=info_kind,
        type=kind,
        master=_u32(attributes, _IFLA_MASTER, 0),
        link=_u32(attributes, _IFLA_LINK, 0),
        xdp=_xdp(attributes),
        mac=attributes.raw_or_empty(_IFLA_ADDRESS),
        calls=calls,
        arp=not flags & _IFF_NOARP,
    )


def _xdp(attributes: Attributes) -> tuple[int, ...]:
    if _IFLA_XDP not in attributes:
        return ()
    xdp = attributes.nested(_IFLA_XDP, "xdp")
    return tuple(sorted({_u32(xdp, kind, 0) for kind in _IFLA_XDP_PROG_IDS} - {0}))


def listening_port(raw: bytes) -> int:
    """The port of one message about a socket, as far as it can be told without decoding it; else 0."""
    return int.from_bytes(raw[_PORT], "big")


def decode_socket(raw: bytes, protocol: Protocol) -> ListeningSocket:
    """One listening socket of `protocol` (the answer does not say which it is)."""
    body = _fixed(raw, _SOCK_DIAG_BY_FAMILY, _INET_DIAG_MSG, "socket")
    family, _, _, _, port, _, source, _, interface, _, _, _, uid, inode = _INET_DIAG_MSG.unpack_from(body)
    v6only, cgroup = False, 0
    transparent: bool | None = None
    for kind, value in walk(body, "socket", _INET_DIAG_MSG.size):
        if kind == _INET_DIAG_SKV6ONLY:
            v6only = any(value)
        elif kind == _INET_DIAG_CGROUP_ID and len(value) == 8:
            (cgroup,) = struct.unpack("=Q", value)
        elif kind == _INET_DIAG_SOCKOPT and value:
            transparent = bool(value[0] & _SOCKOPT_TRANSPARENT)
    return ListeningSocket(
        protocol,
        _ip(family, source, "socket"),
        int.from_bytes(port, "big"),
        v6only=v6only,
        inode=inode,
        uid=uid,
        interface=interface,
        cgroup=cgroup,
        transparent=transparent,
    )
