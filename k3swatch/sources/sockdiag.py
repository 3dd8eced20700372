"""Who listens: TCP sockets in LISTEN and bound UDP sockets over sock_diag(7), IPv4 and IPv6."""

from __future__ import annotations

import errno
import socket
import struct

from k3swatch.errors import SourceError, Unsupported
from k3swatch.sources.netlink import NETLINK_SOCK_DIAG, NetlinkSocket, Refused

_SOCK_DIAG_BY_FAMILY = 20
_TCP_LISTEN, _TCP_CLOSE = 10, 7  # an unconnected UDP socket is in TCP_CLOSE
_REQUEST = struct.Struct("=BBBxI48x")  # inet_diag_req_v2: family, protocol, ext, states, id (any)
_LONGEST = 64 << 20


def _dump(netlink: NetlinkSocket, family: int, protocol: int, state: int) -> list[bytes]:
    try:
        found = netlink.dump(_SOCK_DIAG_BY_FAMILY, _REQUEST.pack(family, protocol, 0, 1 << state), _LONGEST)
    except Refused as error:
        if error.errno == errno.ENOENT:  # inet_diag_lock_handler: tcp_diag or udp_diag is not there
            hint = "modprobe tcp_diag udp_diag inet_diag"
            raise Unsupported("sock_diag: no module for this protocol", hint=hint) from None
        raise
    if found is None:
        raise SourceError(f"sock_diag: a dump of more than {_LONGEST >> 20} MB")
    return found


def sockets(protocol: int) -> list[bytes]:
    """inet_diag_msg messages of the listeners of IPPROTO_TCP (6) or the unconnected sockets of IPPROTO_UDP
    (17).
    """
    state = _TCP_LISTEN if protocol == socket.IPPROTO_TCP else _TCP_CLOSE
    with NetlinkSocket(NETLINK_SOCK_DIAG, "sock_diag") as netlink:
        return [
            message
            for family in (socket.AF_INET, socket.AF_INET6)
            for message in _dump(netlink, family, protocol, state)
        ]


def has_socket(protocol: int, local: tuple[str, int], remote: tuple[str, int]) -> bool:
    """Whether this network namespace has the socket of a connection between these two ends (address, port)."""
    family = socket.AF_INET6 if ":" in local[0] else socket.AF_INET
    ends = [socket.inet_pton(family, each[0]).ljust(16, b"\0") for each in (local, remote)]
    # inet_diag_sockid: ports in network order, addresses, interface, cookie (INET_DIAG_NOCOOKIE)
    number = struct.pack(">HH", local[1], remote[1]) + b"".join(ends) + bytes(4) + b"\xff" * 8
    request = struct.pack("=BBBxI", family, protocol, 0, 0xFFFFFFFF) + number
    with NetlinkSocket(NETLINK_SOCK_DIAG, "sock_diag") as netlink:
        try:
            netlink.ask(_SOCK_DIAG_BY_FAMILY, request)
        except Refused as error:
            if error.errno == errno.ENOENT:
                return False
            raise
    return True
