"""Addresses and interfaces of this network namespace over rtnetlink, and word when they change
(rtnetlink(7)).
"""

from __future__ import annotations

import struct

from k3swatch.errors import SourceError
from k3swatch.sources.events import EventSocket
from k3swatch.sources.netlink import NETLINK_ROUTE, NetlinkSocket, Refused

_RTM_GETLINK, _RTM_GETADDR, _RTM_GETROUTE, _RTM_GETRULE, _RTM_GETQDISC, _RTM_GETTFILTER = (
    18,
    22,
    26,
    34,
    38,
    46,
)
_TCMSG = struct.Struct("=BxxxiIII")  # family, ifindex, handle, parent, info
_RTNLGRP_LINK, _RTNLGRP_TC, _RTNLGRP_IPV4_IFADDR, _RTNLGRP_IPV6_IFADDR = 1, 4, 5, 9
_RTNLGRP_IPV4_RULE, _RTNLGRP_IPV6_RULE = 8, 19
_LONGEST = 64 << 20
_RT_TABLE_LOCAL = 255
_REFUSING = (6, 7, 8)  # RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT
_MANY_ROUTES = 2 << 20  # some 20,000: more than that is a router's


def _dump(kind: int, payload: bytes) -> list[bytes]:
    with NetlinkSocket(NETLINK_ROUTE, "rtnetlink") as netlink:
        found = netlink.dump(kind, payload, _LONGEST)
    if found is None:
        raise SourceError(f"rtnetlink: a dump of more than {_LONGEST >> 20} MB")
    return found


def addresses() -> list[bytes]:
    """RTM_NEWADDR messages of all families. Interrupted when they changed meanwhile."""
    return _dump(_RTM_GETADDR, bytes(8))  # struct ifaddrmsg, AF_UNSPEC


def links() -> list[bytes]:
    """RTM_NEWLINK messages."""
    return _dump(_RTM_GETLINK, bytes(16))  # struct ifinfomsg


def routes() -> list[bytes]:
    """RTM_NEWROUTE messages of all tables, IPv4 and IPv6. SourceError when they are more than _MANY_ROUTES bytes."""
    with NetlinkSocket(NETLINK_ROUTE, "rtnetlink") as netlink:
        found = [netlink.dump(_RTM_GETROUTE, bytes([family]) + bytes(11), _MANY_ROUTES) for family in (2, 10)]
    if None in found:
        raise SourceError(f"rtnetlink: more than {_MANY_ROUTES >> 20} MB of routes")
    return [message for each in found for message in each or ()]


def local_routes() -> list[bytes]:
    """RTM_NEWROUTE messages of the table `local`, IPv4 and IPv6: as many as there are addresses. SourceError when the
    kernel (before 4.20) does not leave out the others, and they are too many."""
    with NetlinkSocket(NETLINK_ROUTE, "rtnetlink") as netlink:
        netlink.strict()
        found = [
            netlink.dump(_RTM_GETROUTE, bytes([family, 0, 0, 0, _RT_TABLE_LOCAL]) + bytes(7), _MANY_ROUTES)
            for family in (2, 10)
        ]
    if None in found:
        raise SourceError(f"rtnetlink: more than {_MANY_ROUTES >> 20} MB of routes in table local")
    return [message for each in found for message in each or ()]


def refusing_routes() -> list[bytes]:
    """RTM_NEWROUTE messages of the routes that lead nowhere, IPv4 and IPv6: the kernel leaves out all others."""
    found: list[bytes] = []
    with NetlinkSocket(NETLINK_ROUTE, "rtnetlink") as netlink:
        netlink.strict()
        for family in (2, 10):
            for kind in _REFUSING:
                header = bytes([family, 0, 0, 0, 0, 0, 0, kind]) + bytes(4)
                found += netlink.dump(_RTM_GETROUTE, header, _MANY_ROUTES) or ()
    return found


def policy_rules() -> list[bytes]:
    """RTM_NEWRULE messages, IPv4 and IPv6."""
    return [message for family in (2, 10) for message in _dump(_RTM_GETRULE, bytes([family]) + bytes(11))]


def qdiscs() -> list[bytes]:
    """RTM_NEWQDISC messages of all interfaces."""
    return _dump(_RTM_GETQDISC, _TCMSG.pack(0, 0, 0, 0, 0))


def filters(interface: int, parent: int) -> list[bytes]:
    """RTM_NEWTFILTER messages of one interface and parent (TC_H_*); none when the interface or qdisc is gone."""
    try:
        return _dump(_RTM_GETTFILTER, _TCMSG.pack(0, interface, 0, parent, 0))
    except Refused:
        return []


class AddressEvents(EventSocket):
    """RTM_NEWADDR, RTM_DELADDR, RTM_NEWLINK and RTM_DELLINK as they happen, and what changes in tc and in the policy
    rules. Not of routes: a host that speaks BGP would hear of nothing else.
    """

    def __init__(self) -> None:
        groups = [_RTNLGRP_LINK, _RTNLGRP_TC, _RTNLGRP_IPV4_IFADDR, _RTNLGRP_IPV6_IFADDR]
        groups += [_RTNLGRP_IPV4_RULE, _RTNLGRP_IPV6_RULE]
        super().__init__(NETLINK_ROUTE, groups, "rtnetlink events")
