"""The metrics as values, and as what prometheus_client collects. Names are a contract: docs/metrics.md.

The number of series is bounded whatever the ruleset says: rows of `k3swatch_diversion_info` and ports are capped,
worst first, and what was left out is counted in `k3swatch_series_omitted`.
"""

from __future__ import annotations

import platform
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.samples import Exemplar

from k3swatch import __version__
from k3swatch.model.finding import Observation, PortVerdict
from k3swatch.model.flow import FlowCount, Outcome
from k3swatch.model.words import Attach, State
from k3swatch.view.escape import escape
from k3swatch.view.message import severity

PORTS, DIVERSIONS, SOURCES = (
    20,
    16,
    12,
)  # ports; rows of diversion_info (of all ports: twice that); label values
DETECTION = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
EVALUATION = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)

DIVERSION = ("port", "mechanism", "family", "destination", "table", "chain", "severity")
Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily | InfoMetricFamily


class Histogram:
    """Counts by bucket, with the last exemplar of each."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._exemplars: list[Exemplar | None] = [None] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float, exemplar: Mapping[str, str] | None = None, at: float | None = None) -> None:
        """Count one value; the exemplar's labels together must be short (OpenMetrics: 128 characters)."""
        index = bisect_left(self._bounds, value)
        self._counts[index] += 1
        self._sum += value
        if exemplar:
            self._exemplars[index] = Exemplar(dict(exemplar), value, at)

    def family(self, name: str, text: str) -> HistogramMetricFamily:
        """As a metric family."""
        total = 0
        buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
        for bound, count, exemplar in zip(
            (*self._bounds, "+Inf"), self._counts, self._exemplars, strict=True
        ):
            total += count
            buckets.append((str(bound), total, exemplar) if exemplar else (str(bound), total))
        return HistogramMetricFamily(name, text, buckets=buckets, sum_value=self._sum)


class Series:
    """Everything that is exported. Not locked: its owner does that."""

    def __init__(self) -> None:
        self.detection, self.evaluation = Histogram(DETECTION), Histogram(EVALUATION)
        self.incidents: dict[tuple[str, str], int] = {}
        self.lost: dict[str, int] = {}
        self.blind: dict[str, float] = {}
        self.attach = Attach.NONE
        self.reloaded = True
        self.failures: Callable[[], Mapping[str, int]] = dict
        self._observation = Observation((), None)
        self._connections: dict[tuple[str, int, Outcome], int] = {}
        self._rows: dict[tuple[str, int, Outcome, str | None], int] = {}

    def observe(self, observation: Observation) -> None:
        """This is how it is now."""
        self._observation = observation

    def count(self, rows: Iterable[FlowCount]) -> None:
        """Take the kernel's counters: they grow while the probe is attached and start anew with another."""
        now: dict[tuple[str, int, Outcome, str | None], int] = {}
        for row in rows:
            now[row.protocol, row.port, row.outcome, row.destination] = row.connections
        for key, connections in now.items():
            before = self._rows.get(key, 0)
            grown = connections - before if connections >= before else connections
            total = (key[0], key[1], key[2])
            self._connections[total] = self._connections.get(total, 0) + grown
        self._rows = now

    def collect(self) -> Iterator[Family]:
        """All families, as prometheus_client's registry asks for them."""
        verdicts = sorted(self._observation.verdicts, key=lambda verdict: -self._state(verdict).rank)
        omitted = max(0, len(verdicts) - PORTS)
        verdicts = verdicts[:PORTS]
        states = GaugeMetricFamily(
            "k3swatch_port_state",
            "1 for the state that a protected port is in: the worst of its findings.",
            labels=("port", "state"),
        )
        flows = CounterMetricFamily(
            "k3swatch_connections",
            "Connections to a protected port, by what became of them.",
            labels=("port", "outcome"),
        )
        for verdict in verdicts:
            name = escape(verdict.port.name, 64)
            for state in State:
                states.add_metric((name, state), float(state is self._state(verdict)))
            for outcome in Outcome:
                key = (verdict.port.protocol, verdict.port.port, outcome)
                flows.add_metric((name, outcome), self._connections.get(key, 0))
        yield states
        yield flows
        diversions = GaugeMetricFamily(
            "k3swatch_diversion_info", "1 for each place connections are diverted to now.", labels=DIVERSION
        )
        rows, over = self._diversions(verdicts)
        for labels in rows:
            diversions.add_metric(labels, 1.0)
        yield diversions
        held = GaugeMetricFamily(
            "k3swatch_neutralised_causes",
            "Causes that would take the port and have no say, because of k3swatch guard.",
            labels=("port",),
        )
        for verdict in verdicts:
            causes = {finding.cause for finding in verdict.findings if finding.neutralised}
            held.add_metric((escape(verdict.port.name, 64),), len(causes))
        yield held
        yield GaugeMetricFamily(
            "k3swatch_series_omitted",
            "Ports and diversions that are not exported because there are too many; not 0 is a fault.",
            omitted + over,
        )
        yield from self._rest({verdict.port.name for verdict in verdicts})

    def _state(self, verdict: PortVerdict) -> State:
        unread = self._observation.generation is None and verdict.state.rank < State.UNKNOWN.rank
        return State.UNKNOWN if unread else verdict.state

    def _diversions(self, verdicts: list[PortVerdict]) -> tuple[list[tuple[str, ...]], int]:
        found: list[tuple[str, ...]] = []
        over = 0
        for verdict in verdicts:
            rows: dict[tuple[str, ...], None] = {}
            for finding in verdict.findings:
                if finding.state is not State.DIVERTED or finding.neutralised:
                    continue
                step = finding.rule
                place = finding.anchor or ((step.family, step.table, step.chain) if step else ("", "", ""))
                loud = severity((finding,), verdict.port.severity)
                values = (finding.destination or "", *place[1:], loud)
                row = (verdict.port.name, finding.mechanism, finding.family, *values)
                rows[tuple(escape(value, 64) for value in row)] = None
            room = min(DIVERSIONS, 2 * DIVERSIONS - len(found))
            found += list(rows)[:room]
            over += max(0, len(rows) - room)
        return found, over

    def _rest(self, ports: set[str]) -> Iterator[Family]:
        incidents = CounterMetricFamily(
            "k3swatch_incidents", "Incidents that were opened.", labels=("port", "mechanism")
        )
        for (port, mechanism), count in self.incidents.items():
            if port in ports:
                incidents.add_metric((escape(port, 64), mechanism), count)
        yield incidents
        yield self.detection.family(
            "k3swatch_detection_seconds",
            "From the commit of a rule to the moment its incident was published.",
        )
        yield self.evaluation.family(
            "k3swatch_evaluation_seconds", "How long one evaluation of all ports took."
        )
        if self._observation.generation is not None:
            yield GaugeMetricFamily(
                "k3swatch_ruleset_generation",
                "The nf_tables generation that was evaluated last.",
                self._observation.generation,
            )
        yield _counter("k3swatch_events_lost", "Events that a source lost.", "source", self.lost)
        yield _counter(
            "k3swatch_blind_seconds", "Seconds in which a source told nothing.", "source", self.blind
        )
        yield _counter(
            "k3swatch_sink_failures", "Messages that a sink could not tell.", "sink", self.failures()
        )
        probe = GaugeMetricFamily("k3swatch_probe_info", "How the probe is attached.", labels=("attach",))
        probe.add_metric((self.attach,), 1.0)
        yield probe
        yield GaugeMetricFamily(
            "k3swatch_config_last_reload_successful",
            "Whether the last configuration that was read is in force.",
            float(self.reloaded),
        )
        build = GaugeMetricFamily("k3swatch_build_info", "The program.", labels=("version", "python"))
        build.add_metric((__version__, platform.python_version()), 1.0)
        yield build


def _counter(name: str, text: str, label: str, values: Mapping[str, float]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=(label,))
    for key in sorted(values)[:SOURCES]:
        family.add_metric((escape(key, 32),), values[key])
    return family
