"""When two findings are the same incident, and when the same incident is worth telling again. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from k3swatch.model.finding import Finding, PathStep
from k3swatch.model.incident import Incident
from k3swatch.model.way import Way

Key = tuple[str, tuple[str, ...]]  # the port's name and the cause


def incident_id(port: str, cause: tuple[str, ...], opened_at: float) -> str:
    """12 hex digits, the same wherever and whenever they are derived from the same three."""
    text = "\0".join((port, *cause, repr(opened_at)))
    return blake2b(text.encode(errors="backslashreplace"), digest_size=6).hexdigest()


def key_of(incident: Incident) -> Key:
    """What an incident is looked up by."""
    return incident.port, incident.cause


def without_counters(rule: str) -> str:
    """The rule's text without the figures of `counter packets 12 bytes 720`: those change with every packet."""
    words = rule.split()
    kept: list[str] = []
    for position, word in enumerate(words):
        before = words[position - 1] if position else ""
        if not (before in {"packets", "bytes"} and word.isdecimal()):
            kept.append(word)
    return " ".join(kept)


def _step(step: PathStep) -> tuple[str, ...]:
    return step.family, step.table, step.chain, without_counters(step.rule)


def working(ways: Iterable[Way]) -> frozenset[tuple[str, ...]]:
    """What a person would act on: where kubectl can be tried, and whether that was verified."""
    return frozenset((way.url, way.answer) for way in ways if way.works)


def material(findings: Iterable[Finding]) -> frozenset[object]:
    """What people would act on: two incidents with equal `material` need no second message.

    Left out: handles, packet counters, generations and evidence. kube-proxy gives every rule a new handle at each
    sync, and a first flow is told as `confirmed`. Of the culprit only the receiver counts, not how it became known.
    """
    return frozenset(
        (
            finding.state,
            finding.vantage,
            finding.family,
            finding.destination,
            finding.restriction,
            frozenset(finding.addresses),
            frozenset(finding.conditions),
            finding.certain,
            finding.shadowed,
            tuple(_step(step) for step in finding.path),
            finding.culprit.receiver if finding.culprit else (),
        )
        for finding in findings
    )
