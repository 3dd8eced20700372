"""What processes did since the last look that no netlink message tells of: listeners, iptables-legacy tables."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace

from k3swatch.model.finding import Observation
from k3swatch.model.process import Deed, Did, Process

Describe = Callable[[int, str], Process | None]

_KEPT = 32


class Deeds:
    """The last ones, each with who did it as far as that is known."""

    def __init__(self, describe: Describe) -> None:
        self._describe = describe
        self._replaced: deque[tuple[Deed, Process]] = deque(maxlen=_KEPT)
        self._listened: dict[int, Process] = {}  # by the socket's inode

    def add(self, deeds: Iterable[Deed]) -> None:
        """They were just read: their processes are looked at now, before they end."""
        for deed in deeds:
            if deed.did is Did.CLOSED:
                continue
            who = self._describe(deed.pid, deed.comm) or Process(deed.pid, deed.comm)
            if deed.did is Did.REPLACED:
                self._replaced.append((deed, who))
            elif deed.inode is not None:
                self._listened.pop(deed.inode, None)
                self._listened[deed.inode] = who
                while len(self._listened) > _KEPT:
                    del self._listened[next(iter(self._listened))]

    def behind(self, observation: Observation) -> Observation:
        """The observation with who may have brought it about. A table that was replaced counts for one look."""
        replaced = tuple(
            (deed.family, deed.at, replace(who, commits=len(self._replaced), only=len(self._replaced) == 1))
            for deed, who in self._replaced
            if deed.family is not None
        )
        self._replaced.clear()
        return replace(observation, replaced=replaced, listened=tuple(self._listened.items()))
