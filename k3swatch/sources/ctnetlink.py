"""The conntrack table: read it, and take single connections out. Raw messages, as in `uapi/linux/netfilter/
nfnetlink_conntrack.h`.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from types import TracebackType

from k3swatch.errors import SourceError
from k3swatch.sources.netlink import NETLINK_NETFILTER, NetlinkSocket, Refused

_CTNETLINK = 1 << 8  # NFNL_SUBSYS_CTNETLINK
_GET, _DELETE = 1, 2
_LONGEST = 64 << 20
_FAMILY = struct.Struct(">BBH")  # nfgenmsg


class Conntrack:
    """The conntrack table of the network namespace it was made in. Raises NotPermitted, Unsupported, SourceError."""

    def __init__(self) -> None:
        self._netlink = NetlinkSocket(NETLINK_NETFILTER, "conntrack", timeout=30.0)

    def __enter__(self) -> Conntrack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._netlink.close()

    def entries(self, wanted: Callable[[bytes], bool]) -> list[bytes]:
        """Those of all connections that are `wanted`; the others are not kept."""
        found = self._netlink.dump(_CTNETLINK | _GET, _FAMILY.pack(0, 0, 0), _LONGEST, wanted)
        if found is None:
            raise SourceError(f"conntrack: more than {_LONGEST >> 20} MB of connections to the port")
        return found

    def delete(self, family: int, attributes: bytes) -> bool:
        """Take out the connection these attributes name (tuple, zone, id); False when it is gone already."""
        try:
            self._netlink.tell(_CTNETLINK | _DELETE, _FAMILY.pack(family, 0, 0) + attributes)
        except Refused as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True
