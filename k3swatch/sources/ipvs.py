"""IPVS's virtual and real servers over generic netlink, as raw messages.

Follows `uapi/linux/ip_vs.h`, `genetlink.h`; IPVS_CMD_GET_SERVICE and GET_DEST dumps (ip_vs_ctl.c). They are those of
this network namespace. There is no event when they change.
"""

from __future__ import annotations

import struct
from pathlib import Path

from k3swatch.errors import SourceError
from k3swatch.sources.netlink import NetlinkSocket, attribute

NETLINK_GENERIC = 16
_GENL_ID_CTRL, _CTRL_CMD_GETFAMILY = 0x10, 3
_CTRL_ATTR_FAMILY_ID, _CTRL_ATTR_FAMILY_NAME = 1, 2
_GET_SERVICE, _GET_DEST = 4, 8  # IPVS_CMD_*
_SERVICE = 1  # IPVS_CMD_ATTR_SERVICE
_AF, _PROTOCOL, _ADDR, _PORT, _FWMARK = range(1, 6)  # IPVS_SVC_ATTR_*
_GENLMSGHDR = struct.Struct("=BBxx")  # command, version
_NESTED = 0x8000  # NLA_F_NESTED
_LONGEST = 64 << 20


def present() -> bool:
    """Whether the kernel has IPVS now.

    The kernel itself must not be asked: looking for a generic netlink family by its name (ctrl_getfamily) loads the
    module that has it, and with it come hooks for every packet. A watcher changes nothing.
    """
    return Path("/proc/thread-self/net/ip_vs").exists()


class Ipvs:
    """A socket to it. NotPermitted without CAP_NET_ADMIN, SourceError when it cannot be had."""

    def __init__(self) -> None:
        self._netlink = NetlinkSocket(NETLINK_GENERIC, "ipvs")
        try:
            name = attribute(_CTRL_ATTR_FAMILY_NAME, b"IPVS\0")
            answer = self._netlink.ask(_GENL_ID_CTRL, _GENLMSGHDR.pack(_CTRL_CMD_GETFAMILY, 1) + name)
            self._family = _family_id(answer)
        except BaseException:
            self._netlink.close()
            raise

    def close(self) -> None:
        """Give the socket back."""
        self._netlink.close()

    def services(self) -> list[bytes]:
        """All virtual servers."""
        return self._dump(_GET_SERVICE, b"")

    def destinations(self, family: int, protocol: int, address: bytes, port: int, fwmark: int) -> list[bytes]:
        """The real servers of one. `family` is AF_INET or AF_INET6; with a `fwmark` the rest says nothing."""
        key = attribute(_AF, struct.pack("=H", family))
        if fwmark:
            key += attribute(_FWMARK, struct.pack("=I", fwmark))
        else:
            key += attribute(_PROTOCOL, struct.pack("=H", protocol))
            key += attribute(_ADDR, address.ljust(16, b"\0"))
            key += attribute(_PORT, struct.pack("!H", port))
        return self._dump(_GET_DEST, attribute(_SERVICE | _NESTED, key))

    def _dump(self, command: int, payload: bytes) -> list[bytes]:
        found = self._netlink.dump(self._family, _GENLMSGHDR.pack(command, 1) + payload, _LONGEST)
        if found is None:
            raise SourceError(f"ipvs: a dump of more than {_LONGEST >> 20} MB")
        return found


def _family_id(answer: bytes) -> int:
    """CTRL_ATTR_FAMILY_ID out of CTRL_CMD_NEWFAMILY."""
    start = 16 + _GENLMSGHDR.size
    while start + 4 <= len(answer):
        length, kind = struct.unpack_from("=HH", answer, start)
        if length < 4:
            break
        if kind == _CTRL_ATTR_FAMILY_ID and length == 6:
            return int(struct.unpack_from("=H", answer, start + 4)[0])
        start += length + 3 & ~3
    raise SourceError("ipvs: generic netlink does not say which family it is")
