"""Who committed which generation of the ruleset, and when we were told.

NEWGEN carries the committing process but no time: the time is that of its receipt, within 0.2 ms of the commit on
an idle machine. When several commits lie between two observations, nobody can tell which one made the
difference: then the time is that of the first, and the committer is told only if it was one and the same.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from k3swatch.model.process import Process

Committer = tuple[int, str]  # pid, comm

_DESCRIBED = 64  # committers whose process is remembered
_KEPT = 256  # commits between two observations that can still be told apart
_U32 = 0xFFFFFFFF


class Commits:
    """The last commits, by generation."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, float, Committer | None]] = deque(maxlen=_KEPT)
        self._processes: dict[Committer, Process] = {}

    def add(
        self, generation: int, at: float, committer: Committer | None, process: Process | None = None
    ) -> None:
        """One NEWGEN, received `at` (CLOCK_REALTIME seconds); kernels before 4.15 name no committer.

        `process`: who that was, when there was time to look.
        """
        self._seen.append((generation, at, committer))
        if committer is not None and process is not None:
            self._processes.pop(committer, None)
            self._processes[committer] = process
            while len(self._processes) > _DESCRIBED:
                del self._processes[next(iter(self._processes))]

    def doers(self, after: int | None, upto: int | None) -> tuple[Process, ...]:
        """Who made the commits after generation `after` up to `upto`, in their order; empty when that is not known.

        portmap alone calls iptables a dozen times for one pod: of several, those that could be looked at are told,
        the last ones, each with how many commits there were.
        """
        commits = [who for _, who in self._between(after, upto).values()]
        found = list(dict.fromkeys(who for who in commits if who is not None))
        if after is None or upto is None or not found or len(commits) != (upto - after) & _U32:
            return ()
        told = [self._processes[who] for who in found if who in self._processes]
        if len(found) == 1:
            return tuple(told)
        told = told or [Process(*found[-1])]
        return tuple(replace(each, commits=len(commits), only=False) for each in told)

    def _between(self, after: int | None, upto: int | None) -> dict[int, tuple[float, Committer | None]]:
        if after is None or upto is None:
            return {}
        span = (upto - after) & _U32
        return {g: (at, who) for g, at, who in self._seen if 0 < ((g - after) & _U32) <= span}

    def between(self, after: int | None, upto: int | None) -> tuple[float | None, Committer | None]:
        """When the first commit after generation `after` was made, up to `upto`, and who made all of them.

        Generations are 32 bits and wrap. Both answers are None when no commit is known, the second also when not
        every one is known.
        """
        found = self._between(after, upto)
        if after is None or upto is None or not found:
            return None, None
        committers = {who for _, who in found.values()}
        known = len(found) == (upto - after) & _U32 and len(committers) == 1
        return min(at for at, _ in found.values()), committers.pop() if known else None
