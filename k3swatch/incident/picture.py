"""Verdicts completed with what the rules alone do not tell, and findings grouped by cause. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from k3swatch.incident.allow import without_allowed
from k3swatch.model.finding import Finding, Observation, PortVerdict
from k3swatch.model.words import Evidence, Family, Mechanism, State, Vantage

LIMIT = 64  # causes on one port that get an incident of their own; the rest share one

UNREAD = "the ruleset cannot be read"
AS_LAST_READ = "known from before: what leads there cannot be read now"
FOLDED = f"more than {LIMIT} causes at once: the others are together here"

Groups = dict[tuple[str, ...], tuple[Finding, ...]]


def notable(finding: Finding) -> bool:
    """Whether a finding makes an incident: diverted, blocked or unknown, and not neutralised by the guard."""
    harmless = finding.restriction or finding.neutralised
    return finding.state not in (State.DELIVERED, State.UNSERVED) and not harmless


def readable(observation: Observation) -> Observation:
    """The observation as the engine takes it: known-good diversions left out, and never silent about not knowing.

    A port of an observation without a generation is unknown even if nobody said so.
    """
    verdicts = tuple(without_allowed(verdict) for verdict in observation.verdicts)
    if observation.generation is None:
        why = observation.warnings[0] if observation.warnings else UNREAD
        verdicts = tuple(_unread(verdict, why) for verdict in verdicts)
    return replace(observation, verdicts=verdicts)


def _unread(verdict: PortVerdict, why: str) -> PortVerdict:
    if any(finding.state is State.UNKNOWN for finding in verdict.findings):
        return verdict
    finding = Finding(State.UNKNOWN, Mechanism.NONE, Vantage.EXTERNAL, Family.IP, (), certain=False, why=why)
    return replace(verdict, findings=(*verdict.findings, finding))


def group(findings: Iterable[Finding], known: Collection[tuple[str, ...]]) -> Groups:
    """Notable findings by cause. `known` causes keep their own group; beyond LIMIT new ones are folded together."""
    groups: Groups = {}
    room = LIMIT - len(known)
    for finding in filter(notable, findings):
        cause = finding.cause
        if cause not in known and cause not in groups:
            if room > 0:
                room -= 1
            else:
                finding = replace(finding, destination=None, path=(), anchor=None, culprit=None, why=FOLDED)
                cause = finding.cause
        groups[cause] = (*groups.get(cause, ()), finding)
    return groups


def with_flow(finding: Finding) -> Finding:
    """The finding with a real connection as further evidence."""
    return replace(finding, evidence=finding.evidence | {Evidence.FLOW})


def as_last_read(finding: Finding) -> Finding:
    """A finding of a ruleset that cannot be read any more: still what is known, but no longer certain."""
    return replace(finding, certain=False, why=finding.why or AS_LAST_READ)
