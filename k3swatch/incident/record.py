"""What the engine remembers of one incident, and when a timer is due for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from k3swatch.incident.table import Phase
from k3swatch.model.finding import Finding, PortVerdict
from k3swatch.model.incident import Incident
from k3swatch.model.port import ProtectedPort
from k3swatch.model.words import Mechanism, State

MEMORY = 300.0  # seconds a resolved incident is remembered: a cause that returns is the same incident
STABLE = 60.0  # seconds without coming or going after which flapping is over
QUIET = 300.0  # seconds without a flow after which an incident known from flows alone is over
FLAP_WINDOW = 600.0
FLAP_LIMIT = 3


def proves(finding: Finding) -> bool:
    """Whether it takes a connection to know it: what a BPF program does cannot be read, so rules leave it unknown."""
    return finding.mechanism is Mechanism.BPF and finding.state is State.DIVERTED


@dataclass(slots=True)
class Record:
    """One incident with its phase. Times are elapsed seconds (timer.py), not the clock's."""

    incident: Incident
    port: ProtectedPort
    phase: Phase = Phase.ABSENT
    since: float = 0.0  # when it last came or went
    flow_at: float = 0.0  # when a flow last went there
    returns: list[float] = field(default_factory=list)
    hidden: bool = False  # at the last look it could not be looked for
    beside: frozenset[tuple[str, ...]] = frozenset()  # causes that were unknown when it was last seen
    told: Incident | None = None  # as it was when somebody was last told

    @property
    def present(self) -> bool:
        """Whether the cause counts as being there."""
        return self.phase in (Phase.OPEN, Phase.FLAPPING)

    @property
    def open(self) -> bool:
        """Whether the world thinks it is open; a pause while flapping is not told."""
        return self.phase in (Phase.OPEN, Phase.FLAPPING, Phase.PAUSED)

    @property
    def proven(self) -> tuple[Finding, ...]:
        """What only connections told, of a cause that can be read as well: where a BPF program sends them."""
        found = self.incident.findings if self.present else ()
        return tuple(each for each in found if proves(each))

    def due(self, flows_visible: bool) -> float | None:
        """Elapsed seconds at which a timer ends for it. A pause that cannot be looked at does not end."""
        if self.phase is Phase.FLAPPING or (self.phase is Phase.PAUSED and not self.hidden):
            return self.since + STABLE
        if self.phase is Phase.RESOLVED:
            return self.since + MEMORY
        if self.phase is Phase.OPEN and self.incident.flow_only and flows_visible:
            return self.flow_at + QUIET
        return None

    def relapsed(self, elapsed: float) -> bool:
        """Note that the cause came back; whether that makes it the third time in ten minutes."""
        recent = [at for at in self.returns if elapsed - at < FLAP_WINDOW]
        self.returns = [*recent, elapsed][-FLAP_LIMIT:]
        return len(self.returns) >= FLAP_LIMIT

    def concealed(self, verdict: PortVerdict) -> bool:
        """Whether an absent cause may only be out of sight: something covering it became unknown since it was seen.

        An unknown that was there beside the cause all along did not hide it, and hides nothing now.
        """
        if self.incident.state is State.UNKNOWN:
            return False
        return any(
            unknown.cause not in self.beside
            and any(_overlap(unknown, finding) for finding in self.incident.findings)
            for unknown in verdict.findings
            if unknown.state is State.UNKNOWN
        )


def _overlap(unknown: Finding, finding: Finding) -> bool:
    same = unknown.vantage is finding.vantage and unknown.family is finding.family
    addresses = (
        not unknown.addresses or not finding.addresses or set(unknown.addresses) & set(finding.addresses)
    )
    return same and bool(addresses)
