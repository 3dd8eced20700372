"""/proc/net/netfilter/nfnetlink_queue and /proc/net/netlink -> PacketQueue, inodes of sockets.

    queue, portid, waiting, copy mode, copy range, dropped, dropped by the reader, sequence, 1
    sk, protocol, portid, groups, rmem, wmem, dump, locks, drops, inode

Port ids are printed as int by one and as unsigned by the other.
"""

from __future__ import annotations

from k3swatch.errors import DecodeError
from k3swatch.model.queue import PacketQueue

_NETLINK_NETFILTER = "12"
_U32 = 0xFFFFFFFF


def decode_queues(table: bytes) -> tuple[PacketQueue, ...]:
    """Every queue. DecodeError when a line is none."""
    found: list[PacketQueue] = []
    for line in table.decode("ascii", "replace").splitlines():
        fields = line.split()
        try:
            number, portid, _, mode = (int(field) for field in fields[:4])
        except ValueError:
            raise DecodeError(f"packet queues: {line[:80]!r}") from None
        found.append(PacketQueue(number, portid & _U32, mode))
    return tuple(found)


def decode_netlink_sockets(table: bytes) -> dict[int, int]:
    """The inodes of the netfilter sockets by port id; a line that does not fit is left out."""
    found: dict[int, int] = {}
    for line in table.decode("ascii", "replace").splitlines()[1:]:
        fields = line.split()
        if len(fields) >= 10 and fields[1] == _NETLINK_NETFILTER and fields[2].lstrip("-").isdecimal():
            found[int(fields[2]) & _U32] = int(fields[9]) if fields[9].isdecimal() else 0
    return found
