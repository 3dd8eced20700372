"""Elapsed time from the `now` of each call, for timers that a clock step must not confuse.

In: CLOCK_REALTIME seconds, which may jump. Out: seconds that only grow. A step back adds nothing (the timer waits
for no lost hour); a step forward counts, so a timer can end early but never hang.
"""

from __future__ import annotations


class Elapsed:
    """Seconds since the first `advance`, as far as `now` ever went forward."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._now: float | None = None

    def advance(self, now: float) -> float:
        """Take note of `now`; return the elapsed seconds."""
        if self._now is not None:
            self.seconds += max(0.0, now - self._now)
        self._now = now
        return self.seconds

    def wall(self, due: float) -> float:
        """The `now` at which elapsed time will be `due`, if the clock does not step."""
        return (self._now or 0.0) + due - self.seconds
