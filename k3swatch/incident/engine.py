"""Findings over time: in go observations, flows and `now`; out come the transitions that people are told.

Guarantees: what cannot be read resolves nothing. What a flow opened, only silence closes. A cause that was open when
the daemon stopped and still is when it starts is not told again. Memory is bounded whatever the ruleset says.
No I/O and no clock: `now` is CLOCK_REALTIME seconds and may step (timer.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from k3swatch.incident.allow import allowed
from k3swatch.incident.identity import Key, incident_id, key_of, material, working
from k3swatch.incident.picture import Groups, as_last_read, group, notable, readable, with_flow
from k3swatch.incident.record import Record, proves
from k3swatch.incident.table import Phase, Signal, move
from k3swatch.incident.timer import Elapsed
from k3swatch.incident.who import (
    Behind,
    Known,
    Subject,
    behind,
    committed_by,
    committer,
    committer_of,
    doer_of,
    subject,
)
from k3swatch.model.finding import Culprit, Finding, Observation, PortVerdict
from k3swatch.model.flow import Flow
from k3swatch.model.incident import Change, Incident, Transition
from k3swatch.model.port import ProtectedPort
from k3swatch.model.way import Way
from k3swatch.model.words import Mechanism, Protocol, State, worst

REMEMBERED = 512  # incidents of all ports, resolved ones included
DROPS = 4  # drop reasons kept for one incident
REMAINS = 5.0  # seconds: a packet for a neighbour that is not there is given up after 3 (NEIGH_FAILED)
FINDINGS = 16  # findings kept for one incident that only flows know

ORDER = (Change.OPENED, Change.CHANGED, Change.CONFIRMED, Change.FLAPPING, Change.RESOLVED)
Step = tuple[Change, Record, Incident, Incident | None]  # what to tell, as it is, as it was last told


class Engine:
    """All incidents of one daemon. Not for several threads at once."""

    def __init__(self, incidents: Iterable[Incident] = ()) -> None:
        """`incidents` are those the store kept: open ones go on, recently resolved ones may come back."""
        self._records: dict[Key, Record] = {}
        self._time = Elapsed()
        self._flows_visible = True
        self._raw: Observation | None = None
        self._seen = Observation(verdicts=(), generation=None)
        self._known = Known()
        for incident in incidents:
            for finding in incident.findings:
                if finding.culprit is not None and finding.culprit.receiver:
                    self._known.learn(subject(finding), finding.culprit)
            phase = Phase.OPEN if incident.open else Phase.RESOLVED
            self._records[key_of(incident)] = Record(incident, _port_of(incident), phase, told=incident)

    @property
    def incidents(self) -> tuple[Incident, ...]:
        """The open ones, oldest first."""
        found = [record.incident for record in self._records.values() if record.open]
        return tuple(sorted(found, key=lambda incident: (incident.opened_at, incident.id)))

    @property
    def observation(self) -> Observation:
        """The last observation completed: known-good diversions left out; what only flows know, and what was known
        before the ruleset became unreadable, put in. This is what sinks and `status` should be given."""
        return replace(self._seen, verdicts=tuple(self._complete(verdict) for verdict in self._seen.verdicts))

    def observe(self, observation: Observation, now: float) -> list[Transition]:
        """Take one evaluation of all ports. A port it does not have is no longer protected."""
        self._time.advance(now)
        self._raw = observation
        return self._judge(observation, now)

    def attributed(self, learned: Iterable[tuple[Subject, Culprit]], now: float) -> list[Transition]:
        """Take what was found out about receivers: told as a change, once, where it is news."""
        self._time.advance(now)
        for about, culprit in learned:
            self._known.learn(about, culprit)
        steps: list[Step] = []
        for record in [each for each in self._records.values() if each.incident.flow_only and each.present]:
            findings = tuple(map(self._known.told, record.incident.findings))
            if all(allowed(record.port, finding) for finding in findings):
                steps += self._signal(record, Signal.GONE, now)
            elif material(findings) != material(record.incident.findings):
                steps += self._appear(record.port, record.incident.cause, findings, now, flow_only=True)[1]
        told = self._tell(steps, now)
        if self._raw is None:
            return told
        # what was seen last, seen with other eyes: no commit is behind it
        return told + self._judge(
            replace(self._raw, committed_at=None, committer=None, doers=(), replaced=(), listened=()), now
        )

    def ways(self, ports: Collection[str], ways: tuple[Way, ...], now: float) -> list[Transition]:
        """Take which paths to the API were found to work while one of these ports is taken: told once, as a change of
        the oldest incident, where it is news."""
        self._time.advance(now)
        steps: list[Step] = []
        here = [record for record in self._records.values() if record.open and record.port.name in ports]
        for record in sorted(here, key=lambda each: (each.incident.opened_at, each.incident.id)):
            fresh = replace(record.incident, ways=ways)
            known = any(each.incident.ways and working(each.incident.ways) == working(ways) for each in here)
            if known or steps or not record.present:
                record.incident = fresh
            else:
                steps += self._signal(record, Signal.DIFFERENT, now, replace(fresh, updated_at=now))
        return self._tell(steps, now)

    def _judge(self, observation: Observation, now: float) -> list[Transition]:
        self._seen = readable(self._told(observation))
        if self._seen.generation is None:
            for record in self._records.values():
                record.hidden = True
        timed = self._timers(now)
        steps: list[Step] = []
        for verdict in self._seen.verdicts:
            steps += self._look(verdict, now)
        if self._seen.generation is not None:
            watched = {verdict.port.name for verdict in self._seen.verdicts}
            for record in self._records.values():
                if record.port.name not in watched:
                    steps += self._signal(record, Signal.GONE, now)
        self._forget()
        # sorted apart: a timer may end an incident that this look reopens, and that must stay the order
        return self._tell(timed, now) + self._tell(steps, now, self._seen)

    def flow(self, port_name: str, finding: Finding, flow: Flow, now: float) -> list[Transition]:
        """Take one diverted connection, explained or not; one to a port that is not protected changes nothing."""
        self._time.advance(now)
        timed, steps = self._timers(now), []
        finding = self._known.told(finding)
        verdict = self._verdict(port_name)
        if verdict is not None and notable(finding) and not allowed(verdict.port, finding):
            steps = self._arrived(verdict.port, finding, flow, now)
        return self._tell(timed, now) + self._tell(steps, now)

    def flows_visible(self, visible: bool, now: float) -> None:
        """Say whether flows can be seen at all (at first they can): while they cannot, silence proves nothing."""
        elapsed = self._time.advance(now)
        for record in self._records.values():
            if visible and not self._flows_visible:
                record.flow_at = elapsed
        self._flows_visible = visible

    def tick(self, now: float) -> list[Transition]:
        """Let timers end that are due at `now`."""
        self._time.advance(now)
        return self._tell(self._timers(now), now)

    def deadline(self) -> float | None:
        """The `now` at which `tick` has something to do (may be past: call it now); None when nothing is pending."""
        due = [at for record in self._records.values() if (at := record.due(self._flows_visible)) is not None]
        return self._time.wall(min(due)) if due else None

    # what is there

    def _look(self, verdict: PortVerdict, now: float) -> list[Step]:
        steps: list[Step] = []
        groups = self._group(verdict.port, verdict.findings)
        unknown = frozenset(each.cause for each in verdict.findings if each.state is State.UNKNOWN)
        for cause, findings in groups.items():
            before = self._records.get((verdict.port.name, cause))
            findings = (*(before.proven if before is not None else ()), *findings)
            record, told = self._appear(verdict.port, cause, findings, now)
            record.beside = unknown
            record.incident = replace(record.incident, generation=self._seen.generation)
            steps += told
        for record in self._of(verdict.port.name):
            record.port = verdict.port
            record.hidden = False
            if record.incident.cause in groups or (record.incident.flow_only and record.open):
                continue
            record.hidden = self._seen.generation is None or record.concealed(verdict)
            steps += self._signal(record, Signal.HIDDEN if record.hidden else Signal.GONE, now)
        return steps

    def _appear(
        self,
        port: ProtectedPort,
        cause: tuple[str, ...],
        findings: tuple[Finding, ...],
        now: float,
        flow_only: bool = False,
    ) -> tuple[Record, list[Step]]:
        """The cause is there with these findings: the record, and what there is to tell."""
        state = worst([finding.state for finding in findings])
        what = Behind() if flow_only else behind(findings, self._seen)
        named = what.named
        record = self._records.get((port.name, cause))
        if record is None or not record.present:
            process = doer_of(findings, what.doers)
            if named is None and process is not None and process.only:
                named = (process.pid, process.comm)
            by = committer(process)
        else:
            by = committer_of(record.incident.findings)
        findings = tuple(committed_by(finding, by) for finding in findings)
        if record is None:
            name = incident_id(port.name, cause, now)
            incident = Incident(name, port.name, port.spec, port.severity, state, cause, findings, now, now)
            generation = None if flow_only else self._seen.generation
            incident = replace(incident, committer=named, generation=generation, flow_only=flow_only)
            record = self._records[port.name, cause] = Record(incident, port)
            if flow_only:
                record.incident = replace(incident, confirmed_at=now)
            return record, self._signal(record, Signal.SEEN, now)
        incident = record.incident
        if incident.confirmed_at is not None:
            findings = tuple(with_flow(finding) for finding in findings)
        fresh = replace(incident, findings=findings, state=state, severity=port.severity, flow_only=flow_only)
        if not record.present:
            fresh = replace(
                fresh, flaps=incident.flaps + 1, resolved_at=None, updated_at=now, committer=named
            )
            signal = Signal.RELAPSED if record.relapsed(self._time.seconds) else Signal.SEEN
        elif material(findings) != material(incident.findings):
            fresh, signal = replace(fresh, updated_at=now), Signal.DIFFERENT
        else:
            signal = Signal.SEEN
        return record, self._signal(record, signal, now, fresh)

    def _arrived(self, port: ProtectedPort, finding: Finding, flow: Flow, now: float) -> list[Step]:
        """A real connection went there."""
        steps: list[Step] = []
        ((cause, findings),) = self._group(port, [with_flow(finding)]).items()
        record = self._belonging(port.name, cause, findings[0], flow)
        if record is None:
            record, steps = self._appear(port, cause, findings, now, flow_only=True)
        elif record.present and (record.incident.flow_only or proves(findings[0])):
            known = record.incident.findings
            wider = known if len(known) >= FINDINGS else (*known, *findings)
            wider = tuple(
                sorted(wider, key=lambda each: not proves(each))
            )  # what is known before what is not
            if cause == record.incident.cause and material(wider) != material(known):
                _, steps = self._appear(port, cause, wider, now, record.incident.flow_only)
        record.flow_at = self._time.seconds
        connections = record.incident.connections + flow.count
        record.incident = replace(record.incident, connections=connections, last_flow_at=flow.at)
        steps += self._lost(record, flow, now, bool(steps))
        if record.incident.confirmed_at is None:
            evident = tuple(with_flow(each) for each in record.incident.findings)
            confirmed = replace(record.incident, confirmed_at=now, findings=evident)
            steps += self._signal(record, Signal.FLOW, now, confirmed)
        return [(change, record, record.incident, previous) for change, record, _, previous in steps]

    def _lost(self, record: Record, flow: Flow, now: float, told: bool) -> list[Step]:
        """A diverted connection was dropped on this host. Each reason is told once; `told`: with what is told of the
        connection anyway, as it is with `confirmed`."""
        drops, why = record.incident.drops, flow.drop_reason
        if why is None or why in drops or len(drops) >= DROPS or not record.present:
            return []
        record.incident = replace(record.incident, drops=(*drops, why))
        if told or record.incident.confirmed_at is None:
            return []
        return self._signal(record, Signal.DIFFERENT, now, replace(record.incident, updated_at=now))

    def _belonging(self, port: str, cause: tuple[str, ...], finding: Finding, flow: Flow) -> Record | None:
        """The incident a flow is part of; None when it is news.

        Flows and rules reach us on two ways. A flow from before the rule was removed is no relapse; and since the
        rule that took it is not there to explain it any more, it counts to the incident with its destination. So does
        one that was only given up afterwards: it was sent off before.
        """
        same = [self._records[port, cause]] if (port, cause) in self._records else []
        late = REMAINS if flow.drop_reason is not None and finding.mechanism is Mechanism.UNEXPLAINED else 0.0
        if finding.mechanism is Mechanism.UNEXPLAINED:
            for record in self._of(port):
                if any(each.destination == finding.destination for each in record.incident.findings):
                    same.append(record)
        for record in same:
            if record.open or flow.at <= (record.incident.resolved_at or 0.0) + late:
                return record
        return None

    # what becomes of it

    def _timers(self, now: float) -> list[Step]:
        steps: list[Step] = []
        for key, record in list(self._records.items()):
            due = record.due(self._flows_visible)
            if due is None or due > self._time.seconds:
                continue
            if record.phase is Phase.RESOLVED:
                self._signal(record, Signal.EXPIRED, now)
                del self._records[key]
            elif record.phase is Phase.OPEN:
                steps += self._signal(record, Signal.GONE, now)
            else:
                record.returns.clear()
                steps += self._signal(record, Signal.SETTLED, now)
        return steps

    def _signal(
        self, record: Record, signal: Signal, now: float, fresh: Incident | None = None
    ) -> list[Step]:
        """Look up what follows; nothing is changed when the table does not allow it."""
        phase, change = move(record.phase, signal)
        incident = fresh or record.incident
        if phase is Phase.RESOLVED and record.phase is not Phase.RESOLVED:
            end = max(now, incident.opened_at)
            incident = replace(incident, resolved_at=end, updated_at=end)
        if phase is not record.phase:
            record.since = self._time.seconds
        record.phase, record.incident = phase, incident
        if change is None:
            return []
        previous, record.told = record.told, incident
        return [(change, record, incident, previous)]

    def _tell(self, steps: list[Step], now: float, seen: Observation | None = None) -> list[Transition]:
        """Transitions, worst news first; each with the port's verdict after all of them."""
        transitions = []
        for change, record, incident, previous in sorted(steps, key=lambda step: ORDER.index(step[0])):
            verdict = self._verdict(record.port.name)
            what = behind(incident.findings, seen)
            transitions.append(
                Transition(
                    change,
                    incident,
                    self._complete(verdict) if verdict else PortVerdict(record.port),
                    now,
                    what.at,
                    previous,
                    what.named,
                )
            )
        return transitions

    # small helpers

    def _of(self, port: str) -> Iterator[Record]:
        return (record for record in self._records.values() if record.port.name == port)

    def _group(self, port: ProtectedPort, findings: Iterable[Finding]) -> Groups:
        return group(findings, {record.incident.cause for record in self._of(port.name) if record.open})

    def _verdict(self, port: str) -> PortVerdict | None:
        return next((verdict for verdict in self._seen.verdicts if verdict.port.name == port), None)

    def _told(self, observation: Observation) -> Observation:
        """The observation with the receivers that are known."""
        verdicts = (
            replace(verdict, findings=tuple(map(self._known.told, verdict.findings)))
            for verdict in observation.verdicts
        )
        return replace(observation, verdicts=tuple(verdicts))

    def _complete(self, verdict: PortVerdict) -> PortVerdict:
        confirmed: set[tuple[str, ...]] = set()
        extra: list[Finding] = []
        by: dict[tuple[str, ...], Culprit | None] = {}
        seen = {finding.cause for finding in verdict.findings}
        for record in self._of(verdict.port.name):
            incident = record.incident
            by[incident.cause] = committer_of(incident.findings) if record.present else None
            if incident.confirmed_at is not None:
                confirmed.add(incident.cause)
            if incident.cause in seen:
                extra += record.proven
            elif record.present:
                if record.hidden:
                    extra += [as_last_read(finding) for finding in incident.findings]
                elif incident.flow_only:
                    extra += incident.findings
        findings = [with_flow(each) if each.cause in confirmed else each for each in verdict.findings]
        findings = [committed_by(each, by.get(each.cause)) for each in findings]
        return replace(verdict, findings=(*findings, *extra))

    def _forget(self) -> None:
        """Keep memory bounded: the longest resolved go first, then nothing (open ones are bounded per port)."""
        resolved = [key for key, record in self._records.items() if record.phase is Phase.RESOLVED]
        resolved.sort(key=lambda key: self._records[key].since)
        for key in resolved[: max(0, len(self._records) - REMEMBERED)]:
            del self._records[key]


def _port_of(incident: Incident) -> ProtectedPort:
    protocol, _, number = incident.spec.partition("/")
    return ProtectedPort(incident.port, int(number), Protocol(protocol), severity=incident.severity)
