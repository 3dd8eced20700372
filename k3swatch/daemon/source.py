"""One source that may fail: opened, lost, told about, opened again with growing pauses.

Keeps a failing source from stopping the daemon, and its failure from going unnoticed: every loss and every return
is one Event, and the time in between is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from k3swatch.clock import Clock
from k3swatch.errors import K3swatchError, SourceError
from k3swatch.model.incident import Event, Notice

FIRST_PAUSE = 1.0  # seconds until the first new try; doubles up to the source's own limit


class Closable(Protocol):
    """What every source can do."""

    def close(self) -> None:
        """Give back what it holds."""
        ...


T = TypeVar("T", bound=Closable)


class Source(Generic[T]):
    """The source `name`. `current` is None while it is blind; `why` then says why."""

    def __init__(self, name: str, tell: Callable[[Event], None], clock: Clock, longest_pause: float) -> None:
        self.name = name
        self.current: T | None = None
        self.why = ""
        self.retry_at = 0.0  # monotonic seconds
        self.before_close: Callable[[], object] | None = None
        self._tell, self._clock = tell, clock
        self._pause, self._longest = FIRST_PAUSE, longest_pause
        self._blind_since: float | None = None
        self._blind_before = 0.0

    @property
    def due(self) -> bool:
        """Whether it is blind and a new try is due."""
        return self.current is None and self._clock.monotonic() >= self.retry_at

    @property
    def blind_seconds(self) -> float:
        """For how long it was blind in all."""
        since = self._blind_since
        return self._blind_before + (0.0 if since is None else self._clock.monotonic() - since)

    def attempt(self, open_it: Callable[[], T]) -> None:
        """Open it, unless it is open already or the next try is not due yet."""
        if not self.due:
            return
        try:
            self.opened(open_it())
        except (K3swatchError, OSError) as error:
            self.failed(error)

    def opened(self, current: T) -> None:
        """It is open now."""
        self.current, self.why, self._pause = current, "", FIRST_PAUSE
        if self._blind_since is not None:
            self._blind_before = self.blind_seconds
            self._blind_since = None
            self._tell(Event(Notice.SIGHTED, self.name, f"{self.name}: seen again", self._clock.now()))

    def failed(self, error: Exception) -> None:
        """It could not be opened, or failed in use: close it, say so once, try again later."""
        now = self._clock.monotonic()
        self.close()
        why = str(error)
        first = self._blind_since is None
        if first:
            self._blind_since = now
        self.retry_at = now + self._pause
        self._pause = min(self._longest, self._pause * 2)
        if first or why != self.why:
            hint = error.hint if isinstance(error, SourceError) else ""
            text = why if why.startswith(self.name) else f"{self.name}: {why}"
            self._tell(Event(Notice.BLIND, self.name, text, self._clock.now(), hint))
        self.why = why

    def close(self) -> None:
        """Close it, for good or until the next try."""
        if self.current is not None:
            if self.before_close is not None:
                self.before_close()
            self.current.close()
        self.current = None
