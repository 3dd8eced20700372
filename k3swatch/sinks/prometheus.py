"""Metrics over HTTP: /metrics, /healthz, /readyz and a page for people, on every configured address."""

from __future__ import annotations

import html
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from k3swatch import __version__
from k3swatch.clock import Clock
from k3swatch.model.finding import Observation
from k3swatch.model.flow import FlowCount
from k3swatch.model.incident import Change, Event, Notice, Transition
from k3swatch.model.words import Attach
from k3swatch.sinks.base import Sink
from k3swatch.sinks.series import Family, Series
from k3swatch.sinks.web import Page, WebServer
from k3swatch.view.escape import escape

if TYPE_CHECKING:
    from prometheus_client.registry import Collector
else:
    Collector = object

STALLED = 60.0  # seconds without a heartbeat after which the daemon does not count as alive
TEXT = "text/plain; charset=utf-8"


class Prometheus(Collector):
    """Tells whoever scrapes."""

    name = "prometheus"

    def __init__(
        self, listen: Sequence[tuple[str, int]], clock: Clock, tls: tuple[str, str] | None = None
    ) -> None:
        """Listens at once; SourceError with a hint when an address is taken. `tls`: certificate and key file."""
        self.failures = 0
        self._clock = clock
        self._series = Series()
        self._lock = threading.Lock()
        self._ready = False
        self._observation = Observation((), None)
        self._beat: float | None = None
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        self._web = WebServer(listen, self._page, clock, tls)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens."""
        return self._web.addresses

    # what the daemon tells

    def publish(self, transition: Transition) -> None:
        """Count the incident, and how long it took from the commit until now."""
        incident = transition.incident
        if transition.change is not Change.OPENED:
            return
        now = self._clock.now()
        with self._lock:
            if not incident.flaps:
                key = (incident.port, incident.findings[0].mechanism)
                self._series.incidents[key] = self._series.incidents.get(key, 0) + 1
            if transition.committed_at is not None:
                seconds = max(0.0, now - transition.committed_at)
                self._series.detection.add(seconds, {"incident": incident.id}, now)

    def notify(self, event: Event) -> None:
        """Note whether the configuration was taken."""
        if event.notice in (Notice.CONFIG_LOADED, Notice.CONFIG_REJECTED):
            with self._lock:
                self._series.reloaded = event.notice is Notice.CONFIG_LOADED

    def observe(self, observation: Observation) -> None:
        """See Sink.observe. The first one that could be read makes /readyz say yes."""
        with self._lock:
            self._observation = observation
            self._series.observe(observation)
            self._ready = self._ready or observation.generation is not None

    def count(self, rows: Iterable[FlowCount]) -> None:
        """The kernel's connection counters, all of them."""
        with self._lock:
            self._series.count(rows)

    def lost(self, totals: Mapping[str, int]) -> None:
        """Events lost so far, by source; a total that shrinks (a new probe) does not make the metric shrink."""
        with self._lock:
            for source, total in totals.items():
                self._series.lost[source] = max(total, self._series.lost.get(source, 0))

    def blind(self, source: str, seconds: float) -> None:
        """`source` told nothing for another `seconds`."""
        with self._lock:
            self._series.blind[source] = self._series.blind.get(source, 0.0) + max(0.0, seconds)

    def evaluated(self, seconds: float) -> None:
        """One evaluation of all ports took so long."""
        with self._lock:
            self._series.evaluation.add(max(0.0, seconds))

    def probe(self, attach: Attach) -> None:
        """How the probe is attached now."""
        with self._lock:
            self._series.attach = attach

    def watch(self, sinks: Sequence[Sink]) -> None:
        """Export the failures of these sinks, read at each scrape."""
        self._series.failures = lambda: {sink.name: sink.failures for sink in sinks}

    def beat(self) -> None:
        """The daemon's loop goes round: /healthz fails when it has not for a minute (never called: not checked)."""
        self._beat = self._clock.monotonic()

    def close(self, timeout: float) -> None:
        """See Sink.close."""
        self._web.close(timeout)

    # what is asked

    def collect(self) -> Iterator[Family]:
        """All families as of one moment."""
        with self._lock:
            families = list(self._series.collect())
        return iter(families)

    def _page(self, path: str, accept: str) -> Page:
        if path == "/metrics":
            encode, kind = choose_encoder(accept)
            return Page(200, kind, encode(self._registry))
        if path == "/healthz":
            return self._health()
        if path == "/readyz":
            if self._ready:
                return Page(200, TEXT, b"ok\n")
            return Page(503, TEXT, b"the ruleset has not been read yet\n")
        if path == "/":
            return Page(200, "text/html; charset=utf-8", self._landing().encode())
        return Page(404, TEXT, b"try /metrics, /healthz, /readyz\n")

    def _health(self) -> Page:
        late = self._clock.monotonic() - self._beat if self._beat is not None else 0.0
        if late > STALLED:
            return Page(503, TEXT, f"the loop has not gone round for {late:.0f} s\n".encode())
        return Page(200, TEXT, b"ok\n")

    def _landing(self) -> str:
        with self._lock:
            verdicts = self._observation.verdicts
        rows = "".join(
            f"<li>{html.escape(verdict.port.spec)} ({html.escape(escape(verdict.port.name, 64))}): {verdict.state}</li>"
            for verdict in verdicts[:100]
        )
        links = " ".join(f'<a href="{path}">{path}</a>' for path in ("/metrics", "/healthz", "/readyz"))
        return f"<!doctype html><title>k3swatch</title><h1>k3swatch {__version__}</h1><ul>{rows}</ul><p>{links}</p>\n"
