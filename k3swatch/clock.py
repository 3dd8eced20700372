"""The one way to read time. Policy code takes `now` as an argument; `daemon`, sources and sinks hold a Clock."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Wall and monotonic time in seconds."""

    def now(self) -> float:
        """CLOCK_REALTIME: what people and other machines are told."""
        ...

    def monotonic(self) -> float:
        """CLOCK_MONOTONIC: what durations and timers are measured with; a clock jump does not move it."""
        ...


class SystemClock:
    """The kernel's clocks."""

    def now(self) -> float:
        """See Clock.now."""
        return time.time()

    def monotonic(self) -> float:
        """See Clock.monotonic."""
        return time.monotonic()
