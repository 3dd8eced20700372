"""What evaluation finds: findings, the path of rules that leads to each, and the verdict on a port."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from k3swatch.model.port import ProtectedPort
from k3swatch.model.process import Process
from k3swatch.model.words import Evidence, Family, Mechanism, State, Vantage, worst


@dataclass(frozen=True, slots=True)
class PathStep:
    """One rule between the hook and the decision. `rule` is nft's wording; all strings may be hostile."""

    family: str  # the table's family: ip, ip6, inet, ...
    table: str
    chain: str
    handle: int
    rule: str
    comment: str | None = None
    packets: int | None = None  # the rule's counter, None when it has none


class Orphan(StrEnum):
    """What a rule has outlived; two independent sources agree that it is gone."""

    SANDBOX = "sandbox"  # the pod sandbox that portmap made the rule for
    SERVICE = "service"  # the Service that ServiceLB made the pod for


@dataclass(frozen=True, slots=True)
class Culprit:
    """Who receives the traffic, and who committed the rule. Filled in by attribution; None fields are not known.

    `confidence` is `high` when independent sources agree, `medium` when one says so, `low` when it is no more than a
    name or when sources contradict each other; `notes` then say how. It is about the receiver, not the process.
    """

    pod: str | None = None  # namespace/name
    owner: str | None = None  # DaemonSet/name
    service: str | None = None  # namespace/name
    container: str | None = None  # its id, or docker:name, podman:name
    process: str | None = None  # who committed, in words
    committed: Process | None = None  # the same, in parts
    confidence: str = "low"
    sources: tuple[str, ...] = ()
    forwards: str | None = None  # where a ServiceLB pod sends the connections on, `10.43.49.200:6443`
    left_behind: bool = False  # two sources agree: what the rule was made for is gone
    notes: tuple[str, ...] = ()  # contradictions first
    orphan: Orphan | None = None  # which of them is gone, when `left_behind`
    contradictions: tuple[str, ...] = ()  # between sources, in words

    @property
    def receiver(self) -> tuple[str | bool | None, ...]:
        """What a person would act upon; empty when no receiver is known."""
        known = (self.pod, self.owner, self.service, self.container)
        return (*known, self.left_behind) if any(known) else ()


@dataclass(frozen=True, slots=True)
class Finding:
    """One (port, vantage, family, mechanism, destination, deciding rule), with its evidence and conditions.

    `addresses` are the protected addresses it holds for. `destination` is `10.42.0.244:6443` or
    `[fd00::5]:6443`; None where there is no single one (blocked, unknown). `conditions` say what must hold, in
    words, when it is not everyone. `certain` is False when it rests on something that could not be decided
    (an expression not understood, chains tied in priority that disagree). `why` says so, for a person.
    """

    state: State
    mechanism: Mechanism
    vantage: Vantage
    family: Family
    addresses: tuple[str, ...]
    destination: str | None = None
    conditions: tuple[str, ...] = ()
    certain: bool = True
    evidence: frozenset[Evidence] = frozenset({Evidence.RULE})
    shadowed: bool = False
    path: tuple[PathStep, ...] = ()
    why: str | None = None
    culprit: Culprit | None = None
    # (family, table, chain) entered by the first rule on the path that asks for the port, e.g. KUBE-EXT-...: stable
    # while the chains below it (one per endpoint) come and go. None: the deciding rule itself asks.
    anchor: tuple[str, str, str] | None = None
    # A block that meets only some (`conditions` say whom), an address nobody listens on while others are served:
    # told, but no alarm and no part of the port's state.
    restriction: bool = False
    # How many steps at the end of the path refuse a connection that those before them sent elsewhere: its `state` is
    # blocked then, `mechanism` and `destination` say how it was taken. 0: nothing of the kind.
    refusing: int = 0
    # Shadowed by `k3swatch guard`: it has no say while the guard is there. Told as a notice, never an incident.
    neutralised: bool = False

    @property
    def rule(self) -> PathStep | None:
        """The deciding rule: the last on the path."""
        return self.path[-1] if self.path else None

    @property
    def taking(self) -> PathStep | None:
        """The rule that sends connections elsewhere, whatever becomes of them then; else the deciding one."""
        return self.path[-1 - self.refusing] if 0 < self.refusing < len(self.path) else self.rule

    @property
    def cause(self) -> tuple[str, ...]:
        """What makes two findings the same cause: mechanism, family, and the chain that belongs to whoever did it.

        Neither handle nor vantage nor address: kube-proxy rewrites its chains at every sync, and one CNI-DN chain
        takes the port on every address from both vantages. It is still one cause to remove. The destination counts
        only where no such chain exists: a Service with three endpoints is one cause.
        """
        kind = self.state if self.mechanism is Mechanism.NONE else self.mechanism
        if self.anchor is not None:
            return (kind, self.family, "", *self.anchor)
        step = self.taking
        where = (step.family, step.table, step.chain) if step else ("", "", "")
        place = self.destination or ""
        if self.mechanism in (Mechanism.REDIRECT, Mechanism.TPROXY):
            place = place.rpartition(":")[2]  # the address is whichever of ours was dialled
        return (kind, self.family, place, *where)


@dataclass(frozen=True, slots=True)
class PortVerdict:
    """Everything known about one protected port at one generation."""

    port: ProtectedPort
    findings: tuple[Finding, ...] = ()
    # every (vantage, address) that was judged; those no finding names are delivered (or unserved)
    judged: tuple[tuple[Vantage, str], ...] = ()
    unserved: bool = False

    @property
    def state(self) -> State:
        """The worst of the findings that are not shadowed; a restriction is what its firewall is for."""
        counted = [f for f in self.findings if not f.shadowed and not f.restriction]
        states = [finding.state for finding in counted]
        if self.unserved:
            states.append(State.UNSERVED)
        return worst(states)


@dataclass(frozen=True, slots=True)
class Observation:
    """One evaluation of all ports: what `check` prints and what the incident engine is fed with."""

    verdicts: tuple[PortVerdict, ...]
    generation: int | None  # None: the ruleset could not be read
    host: str = ""
    committed_at: float | None = None  # CLOCK_REALTIME seconds of the commit that caused it, when known
    committer: tuple[int, str] | None = None  # pid and comm from NEWGEN
    warnings: tuple[str, ...] = field(default=())  # one line each, for a person
    doers: tuple[Process, ...] = ()  # who committed, one for each commit that may have made the difference
    replaced: tuple[tuple[Family, float, Process], ...] = ()  # iptables-legacy tables, when and by whom
    listened: tuple[tuple[int, Process], ...] = ()  # who called listen(2) on the socket with this inode

    @property
    def state(self) -> State:
        """The worst state of all ports."""
        return worst([verdict.state for verdict in self.verdicts])
