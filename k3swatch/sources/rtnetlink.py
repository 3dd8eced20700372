"""Addresses and interfaces of this network namespace over rtnetlink, and word when they change
(rtnetlink(7)).
"""

from __future__ import annotations

import struct

from k3swatch.errors import SourceError
from k3swatch.sources.events import EventSocket
from k3swatch.sources.netlink import NETLINK_ROUTE, NetlinkSocket, Refused

_RTM_GETLINK, _RTM_GETADDR, _RTM_GETQDISC, _RTM_GETTFILTER = 18, 22, 38, 46
_TCMSG = struct.Struct("=BxxxiIII")  # family, ifindex, handle, parent, info
_RTNLGRP_LINK, _RTNLGRP_TC, _RTNLGRP_IPV4_IFADDR, _RTNLGRP_IPV6_IFADDR = 1, 4, 5, 9
_LONGEST = 64 << 20


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
    """RTM_NEWADDR, RTM_DELADDR, RTM_NEWLINK and RTM_DELLINK as they happen, and what changes in tc."""

    def __init__(self) -> None:
        groups = [_RTNLGRP_LINK, _RTNLGRP_TC, _RTNLGRP_IPV4_IFADDR, _RTNLGRP_IPV6_IFADDR]
        super().__init__(NETLINK_ROUTE, groups, "rtnetlink events")
