"""Who is told: builds the sinks from the configuration, and passes everything on to each.

A sink never blocks or raises; what it could not tell it reports from any thread, and the loop tells the others.
"""

from __future__ import annotations

import socket
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from k3swatch.clock import Clock
from k3swatch.config import Config
from k3swatch.model.finding import Observation
from k3swatch.model.flow import FlowCount
from k3swatch.model.incident import Event, Incident, Transition
from k3swatch.model.words import Attach
from k3swatch.sinks.base import Sink
from k3swatch.sinks.journald import Journald
from k3swatch.sinks.store import Store

GRACE = 2.0  # seconds each sink has to tell the last things
RESTART = ("metrics", "journal", "state", "control")  # sections that only a restart puts in force


class Sinks:
    """All of them, in the order they are told: the journal first, it is the quickest."""

    def __init__(self, config: Config, clock: Clock, wake: Callable[[], None]) -> None:
        """`wake` ends a wait of the loop, from any thread. Raises SourceError when metrics cannot be served."""
        self._clock, self._wake = clock, wake
        self._reported: deque[Event] = deque(maxlen=64)
        self._blind: dict[str, float] = {}
        self._prometheus = None
        if config.metrics.listen:
            from k3swatch.sinks.prometheus import Prometheus

            listen = [(address.host, address.port) for address in config.metrics.listen]
            tls = config.metrics.tls
            self._prometheus = Prometheus(listen, clock, (tls.cert_file, tls.key_file) if tls else None)
        watched = sys.stderr is not None and sys.stderr.isatty()  # by who started the daemon by hand
        self.all: list[Sink] = [Journald(stderr=sys.stderr, enabled=config.journal.enabled, watched=watched)]
        if self._prometheus is not None:
            self.all.append(self._prometheus)
            self._prometheus.watch(self.all)
        self._store = Store(config.state.path, clock, self.report)
        self.all.append(self._store)
        self._alertmanager = self._open_alertmanager(config, self.incidents())

    def incidents(self) -> tuple[Incident, ...]:
        """What the store remembers."""
        return self._store.load()

    def publish(self, transition: Transition) -> None:
        """One step of an incident, to all."""
        for sink in self.all:
            sink.publish(transition)

    def notify(self, event: Event) -> None:
        """One event, to all."""
        for sink in self.all:
            sink.notify(event)

    def observe(self, observation: Observation, seconds: float | None = None) -> None:
        """How it is now, to all; finding out took so many `seconds` (None: the rules were not evaluated for it)."""
        for sink in self.all:
            sink.observe(observation)
        if self._prometheus is not None and seconds is not None:
            self._prometheus.evaluated(seconds)

    def meter(
        self, attach: Attach, counts: Sequence[FlowCount], lost: Mapping[str, int], blind: Mapping[str, float]
    ) -> None:
        """Figures for metrics. `lost` and `blind` (seconds) are totals by source."""
        if self._prometheus is None:
            return
        self._prometheus.beat()
        self._prometheus.probe(attach)
        self._prometheus.count(counts)
        self._prometheus.lost(lost)
        for source, total in blind.items():
            self._prometheus.blind(source, total - self._blind.get(source, 0.0))
        self._blind = dict(blind)

    def recount(self, incidents: Iterable[Incident]) -> None:
        """How many connections met the open incidents so far, kept for a daemon that is killed."""
        self._store.recount(incidents)

    def report(self, event: Event) -> None:
        """A sink's own trouble, from any thread."""
        self._reported.append(event)
        self._wake()

    def reported(self) -> Iterable[Event]:
        """What sinks reported of themselves since the last call."""
        while self._reported:
            yield self._reported.popleft()

    def configure(self, old: Config, new: Config, incidents: Sequence[Incident]) -> tuple[str, ...]:
        """Take a new configuration; the sections that will be in force after a restart only.

        `incidents` are the open ones: a new Alertmanager has to know them.
        """
        if old.alertmanager != new.alertmanager:
            if self._alertmanager is not None:
                self.all.remove(self._alertmanager)
                self._alertmanager.close(GRACE)
            self._alertmanager = self._open_alertmanager(new, incidents)
        return tuple(section for section in RESTART if getattr(old, section) != getattr(new, section))

    def close(self) -> None:
        """Let each tell what is still to be told."""
        for sink in self.all:
            sink.close(GRACE)

    def _open_alertmanager(self, config: Config, incidents: Iterable[Incident]) -> Sink | None:
        if not config.alertmanager.urls:
            return None
        from k3swatch.sinks.alertmanager import Alertmanager

        host = socket.gethostname()
        sink = Alertmanager(config.alertmanager.urls, host, self._clock, self.report, incidents)
        self.all.append(sink)
        return sink
