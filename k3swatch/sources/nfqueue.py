"""Which queues of packets are read, and by whose socket: two files of /proc of this network namespace.

nfqnl_ops and seq_show in net/netfilter/nfnetlink_queue.c; netlink_native_seq_show in net/netlink/af_netlink.c. There is
no event when a program binds a queue or ends.
"""

from __future__ import annotations

import os

from k3swatch.errors import SourceError

_HERE = "/proc/thread-self/net"
_LONGEST = 1 << 20


def queues() -> bytes:
    """The table of queues, one a line; empty where the kernel has none. SourceError when it may not be read."""
    folder = f"{_HERE}/netfilter"
    if os.path.isdir(folder) and not os.path.exists(f"{folder}/nfnetlink_queue"):
        return b""  # the module is not there, so nobody can have bound one
    return _read(f"{folder}/nfnetlink_queue")


def netlink_sockets() -> bytes:
    """The table of netlink sockets, which says what socket has a port id."""
    return _read(f"{_HERE}/netlink")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_LONGEST)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from error
