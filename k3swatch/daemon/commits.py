"""Who committed which generation of the ruleset, and when we were told.

NEWGEN carries the committing process but no time: the time is that of its receipt, within 0.2 ms of the commit on
an idle machine. When several commits lie between two observations, nobody can tell which one made the
difference: then the time is that of the first, and the committer is told only if it was one and the same.
"""

from __future__ import annotations

from collections import deque

Committer = tuple[int, str]  # pid, comm

_KEPT = 256  # commits between two observations that can still be told apart
_U32 = 0xFFFFFFFF


class Commits:
    """The last commits, by generation."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, float, Committer | None]] = deque(maxlen=_KEPT)

    def add(self, generation: int, at: float, committer: Committer | None) -> None:
        """One NEWGEN, received `at` (CLOCK_REALTIME seconds); kernels before 4.15 name no committer."""
        self._seen.append((generation, at, committer))

    def between(self, after: int | None, upto: int | None) -> tuple[float | None, Committer | None]:
        """When the first commit after generation `after` was made, up to `upto`, and who made all of them.

        Generations are 32 bits and wrap. Both answers are None when no commit is known, the second also when not
        every one is known.
        """
        if after is None or upto is None:
            return None, None
        span = (upto - after) & _U32
        found = {g: (at, who) for g, at, who in self._seen if 0 < ((g - after) & _U32) <= span}
        if not found:
            return None, None
        committers = {who for _, who in found.values()}
        known = len(found) == span and len(committers) == 1
        return min(at for at, _ in found.values()), committers.pop() if known else None
