"""Who is told: builds the sinks from the configuration, and passes everything on to each.

A sink never blocks or raises; what it could not tell it reports from any thread, and the loop tells the others.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable

from k3swatch.config import Config
from k3swatch.model.finding import Observation
from k3swatch.model.incident import Event, Incident, Transition
from k3swatch.sinks.base import Sink
from k3swatch.sinks.journald import Journald

GRACE = 2.0  # seconds each sink has to tell the last things


class Sinks:
    """All of them, in the order they are told: the journal first, it is the quickest."""

    def __init__(self, config: Config, wake: Callable[[], None]) -> None:
        """`wake` ends a wait of the loop, from any thread. Raises SourceError when metrics cannot be served."""
        self._config, self._wake = config, wake
        self._reported: deque[Event] = deque(maxlen=64)
        self.all: list[Sink] = [_journal(config)]
        if sys.stderr.isatty() and config.journal.enabled:
            self.all.append(_terminal())

    def publish(self, transition: Transition) -> None:
        """One step of an incident, to all."""
        for sink in self.all:
            sink.publish(transition)

    def notify(self, event: Event) -> None:
        """One event, to all."""
        for sink in self.all:
            sink.notify(event)

    def observe(self, observation: Observation) -> None:
        """How it is now, to all."""
        for sink in self.all:
            sink.observe(observation)

    def reported(self) -> Iterable[Event]:
        """What sinks reported of themselves since the last call."""
        while self._reported:
            yield self._reported.popleft()

    def report(self, event: Event) -> None:
        """A sink's own trouble, from any thread."""
        self._reported.append(event)
        self._wake()

    def incidents(self) -> tuple[Incident, ...]:
        """What the store remembers."""
        return ()

    def configure(self, config: Config) -> None:
        """Take a new configuration. Raises ConfigError and changes nothing when it cannot be had."""
        self._config = config

    def close(self) -> None:
        """Let each tell what is still to be told."""
        for sink in self.all:
            sink.close(GRACE)


def _journal(config: Config) -> Sink:
    return Journald(stderr=sys.stderr, enabled=config.journal.enabled)


def _terminal() -> Sink:
    """For who started the daemon by hand and looks at it."""
    sink = Journald(stderr=sys.stderr, enabled=False)
    sink.name = "stderr"
    return sink
