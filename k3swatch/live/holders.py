"""Whose the listening sockets are: control group and processes, looked up where somebody will ask.

On a host where one socket has the port and the configuration says nothing of its owner, there is nothing to ask and
nothing is read. What was found is kept while the sockets stay the same, but not longer than KEPT seconds: a
descriptor can be passed on without a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from k3swatch.model.port import Holder, ListeningSocket, ProtectedPort
from k3swatch.sources import procs

KEPT = 25.0
MOST = 128  # sockets that are looked up
_SHOWN = 4  # processes of one socket


class Holders:
    """Remembers whose they are."""

    def __init__(self) -> None:
        self._known: dict[ListeningSocket, ListeningSocket] = {}
        self._since = 0.0

    def tell(
        self, sockets: Sequence[ListeningSocket], ports: Sequence[ProtectedPort], now: float
    ) -> tuple[ListeningSocket, ...]:
        """The sockets, those of `ports` with what is known of their owners. `now` is in monotonic seconds."""
        asked = _asked(sockets, ports)
        if asked != set(self._known) or now - self._since > KEPT:
            self._known = look_up(asked)
            self._since = now
        return tuple(self._known.get(socket, socket) for socket in sockets)


def _asked(sockets: Sequence[ListeningSocket], ports: Sequence[ProtectedPort]) -> set[ListeningSocket]:
    """The sockets of the ports where it makes a difference whose they are."""
    found: set[ListeningSocket] = set()
    for port in ports:
        mine = [s for s in sockets if s.port == port.port and s.protocol is port.protocol]
        if len(mine) > 1 or port.listener.exe or port.listener.unit:
            found.update(mine[:MOST])
    return found


def look_up(sockets: set[ListeningSocket]) -> dict[ListeningSocket, ListeningSocket]:
    """Each of the sockets with what is known of its owner."""
    if not sockets:
        return {}
    mount = procs.cgroup_mount()
    paths = procs.cgroup_paths(mount, {socket.cgroup for socket in sockets} - {0}) if mount else {}
    inodes = {socket.inode for socket in sockets} - {0}
    near = sorted({pid for path in paths.values() for pid in procs.members(mount or "", path)})
    pids = procs.holders(inodes, near)
    if len(pids) < len(inodes):  # it has moved to another group since, or passed the descriptor on
        pids.update(procs.holders(inodes - set(pids), procs.processes()))
    exes = {pid: procs.executable(pid) for some in pids.values() for pid in some[:_SHOWN]}
    return {
        socket: replace(
            socket,
            cgroup_path=paths.get(socket.cgroup),
            holders=tuple(Holder(pid, exes[pid]) for pid in sorted(pids.get(socket.inode, ())[:_SHOWN])),
        )
        for socket in sockets
    }
