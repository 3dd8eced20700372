"""The queues of packets that programs read, and which programs those are."""

from __future__ import annotations

from dataclasses import replace

from k3swatch.decode.nfqueue import decode_netlink_sockets, decode_queues
from k3swatch.errors import SourceError
from k3swatch.model.queue import PacketQueue
from k3swatch.sources import nfqueue, procs

KEPT = 25.0


class Queues:
    """Remembers who reads them."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}  # by port id
        self._since = 0.0

    def tell(self, queues: tuple[PacketQueue, ...] | None, now: float) -> tuple[PacketQueue, ...] | None:
        """The queues with the names of their readers. `now` is in monotonic seconds."""
        asked = {queue.portid for queue in queues or ()}
        if asked != set(self._known) or now - self._since > KEPT:
            self._known, self._since = readers(asked), now
        return queues and tuple(replace(queue, reader=self._known[queue.portid]) for queue in queues)


def read() -> tuple[PacketQueue, ...]:
    """Those there are now, without names. Raises SourceError and DecodeError."""
    return decode_queues(nfqueue.queues())


def readers(portids: set[int]) -> dict[int, str]:
    """Who has the netlink sockets with these port ids, in words; a port id is often, but not always, the pid."""
    found = dict.fromkeys(portids, "")
    if not portids:
        return found
    try:
        inodes = decode_netlink_sockets(nfqueue.netlink_sockets())
    except SourceError:
        return found
    wanted = {inodes[portid]: portid for portid in portids if inodes.get(portid)}
    pids = procs.holders(wanted, sorted(portids))
    if len(pids) < len(wanted):
        pids |= procs.holders(set(wanted) - set(pids), procs.processes())
    for inode, some in pids.items():
        pid = min(some)
        found[wanted[inode]] = f"{procs.executable(pid) or 'a process'} (pid {pid})"
    return found
