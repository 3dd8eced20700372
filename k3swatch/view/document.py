"""Observations, incidents and the daemon's own state as plain dicts, ready for json.dumps.

`check` is the document of docs/check.schema.json: versioned, additive changes only.
"""

from __future__ import annotations

import json
from typing import Any

from k3swatch.model.finding import Culprit, Finding, Observation, PathStep, PortVerdict
from k3swatch.model.incident import Incident
from k3swatch.model.process import Process
from k3swatch.model.way import Way
from k3swatch.model.words import Attach
from k3swatch.view.cure import cure

SCHEMA = 1

Document = dict[str, Any]


def dumps(document: Document) -> str:
    """Indented JSON, ASCII only: hostile names cannot reach a terminal as control characters."""
    return json.dumps(document, indent=2, ensure_ascii=True)


def check(observation: Observation, probe: Attach | None = None) -> Document:
    """The document of `check --format json`. `probe`: how it is attached, when a daemon knows."""
    return {
        "schema": SCHEMA,
        "generation": observation.generation,
        "host": observation.host,
        "probe": probe,
        "state": observation.state,
        "warnings": list(observation.warnings),
        "ports": [port(verdict) for verdict in observation.verdicts],
    }


def port(verdict: PortVerdict) -> Document:
    """One protected port with its findings."""
    return {
        "name": verdict.port.name,
        "protocol": verdict.port.protocol,
        "port": verdict.port.port,
        "state": verdict.state,
        "unserved": verdict.unserved,
        "judged": [{"vantage": vantage, "address": address} for vantage, address in verdict.judged],
        "findings": [finding(found) for found in verdict.findings],
    }


def finding(found: Finding) -> Document:
    """One finding with its path."""
    return {
        "state": found.state,
        "mechanism": found.mechanism,
        "vantage": found.vantage,
        "family": found.family,
        "addresses": list(found.addresses),
        "destination": found.destination,
        "conditions": list(found.conditions),
        "certain": found.certain,
        "evidence": sorted(found.evidence),
        "shadowed": found.shadowed,
        "restriction": found.restriction,
        "neutralised": found.neutralised,
        "why": found.why,
        "path": [step(one) for one in found.path],
        "refusing": found.refusing,
        "culprit": culprit(found.culprit),
        "cure": cure(found),
    }


def step(one: PathStep) -> Document:
    """One rule on a path."""
    return {
        "family": one.family,
        "table": one.table,
        "chain": one.chain,
        "handle": one.handle,
        "rule": one.rule,
        "comment": one.comment,
        "packets": one.packets,
    }


def culprit(who: Culprit | None) -> Document | None:
    """Who receives the traffic and who committed the rule, as far as it is known."""
    if who is None:
        return None
    return {
        "pod": who.pod,
        "owner": who.owner,
        "service": who.service,
        "container": who.container,
        "process": who.process,
        "committed": process(who.committed),
        "confidence": who.confidence,
        "sources": list(who.sources),
        "forwards": who.forwards,
        "left_behind": who.left_behind,
        "orphan": who.orphan,
        "contradictions": list(who.contradictions),
        "notes": list(who.notes),
    }


def process(one: Process | None) -> Document | None:
    """Who committed the rule."""
    if one is None:
        return None
    return {
        "pid": one.pid,
        "comm": one.comm,
        "exe": one.exe,
        "arguments": list(one.arguments),
        "cut": one.cut,
        "uid": one.uid,
        "parents": [{"pid": each.pid, "comm": each.comm, "exe": each.exe} for each in one.parents],
        "unit": one.unit,
        "container": one.container,
        "pod": one.pod,
        "commits": one.commits,
        "only": one.only,
        "confidence": one.confidence,
        "sources": list(one.sources),
    }


def way(one: Way) -> Document:
    """One address of the API that was dialled while its port is taken."""
    return {
        "url": one.url,
        "answer": one.answer,
        "works": one.works,
        "kubeconfig": one.kubeconfig,
        "issuer": one.issuer,
        "names": list(one.names),
        "why": one.why,
    }


def incident(one: Incident) -> Document:
    """One incident. Times are seconds since the epoch."""
    return {
        "id": one.id,
        "port": one.port,
        "spec": one.spec,
        "severity": one.severity,
        "state": one.state,
        "cause": list(one.cause),
        "opened_at": one.opened_at,
        "updated_at": one.updated_at,
        "confirmed_at": one.confirmed_at,
        "resolved_at": one.resolved_at,
        "connections": one.connections,
        "drops": list(one.drops),
        "generation": one.generation,
        "committer": {"pid": one.committer[0], "comm": one.committer[1]} if one.committer else None,
        "flaps": one.flaps,
        "ways": [way(each) for each in one.ways],
        "findings": [finding(found) for found in one.findings],
    }
