"""What `status` prints, from the document the daemon gave. Pure; its values are escaped like everything else."""

from __future__ import annotations

import json
from typing import Any

from k3swatch.errors import DecodeError
from k3swatch.model.words import State
from k3swatch.view.document import Document
from k3swatch.view.escape import escape
from k3swatch.view.lines import coloured
from k3swatch.view.message import duration
from k3swatch.view.who import COMMITTED


def parse(answer: bytes) -> Document:
    """The document in the daemon's answer. Raises DecodeError when it is none of ours."""
    try:
        found = json.loads(answer)
        State(found["state"])
        if not isinstance(found["daemon"], dict) or not isinstance(found["ports"], list):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DecodeError("the daemon's answer is cut or not a status document", "same version?") from error
    document: Document = found
    return document


def text(document: Document, colour: bool = False) -> str:
    """Ports, open incidents, how the daemon sees, who could not be told."""
    daemon = document["daemon"]
    health = "" if daemon.get("healthy") else ", NOT healthy"
    lines = [
        f"k3swatch {_word(daemon.get('version'))}, pid {_word(daemon.get('pid'))}, "
        f"up {duration(float(daemon.get('uptime_seconds', 0)))}{health}"
    ]
    for port in document["ports"]:
        state = State(port["state"])
        lines.append(
            f"{_word(port.get('protocol'))}/{_word(port.get('port'))} ({_word(port.get('name'))}): "
            f"{coloured(state, state, colour)}"
        )
    generation = document.get("generation")
    lines.append("ruleset: unread" if generation is None else f"ruleset: generation {_word(generation)}")
    ipvs = f", those that IPVS takes by {_word(document['ipvs'])}" if document.get("ipvs") else ""
    lines.append(f"connections: seen by {_word(document.get('probe'))}{ipvs}")
    lines += [f"  not used: {_word(why)}" for why in document.get("refused", ())]
    doer = document.get("doer") or {}
    if doer:
        wakes = ", ".join(map(_word, doer.get("wakes") or ()))
        lines.append(f"doer: {_word(doer.get('sees'))}" + (f"; told at once of {wakes}" if wakes else ""))
        lines += [f"  not used: {_word(why)}" for why in doer.get("refused", ())]
    lines += [f"  {_count(row)}" for row in document.get("connections", ()) if row.get("connections")]
    for source in document.get("sources", ()):
        if source.get("blind"):
            lines.append(f"blind: {_word(source.get('name'))}: {_word(source.get('why') or 'not tried yet')}")
    lost = {name: number for name, number in document.get("lost", {}).items() if number}
    if lost:
        lines.append("lost: " + ", ".join(f"{_word(name)} {_word(number)}" for name, number in lost.items()))
    for sink in document.get("sinks", ()):
        if sink.get("failures"):
            lines.append(f"could not tell {_word(sink.get('name'))} {_word(sink.get('failures'))} times")
    lines += [line for one in document.get("incidents", ()) for line in _incident(one)]
    return "\n".join(lines)


def _incident(one: dict[str, Any]) -> list[str]:
    findings = one.get("findings") or [{}]
    destination = findings[0].get("destination")
    target = f" to {_word(destination)}" if destination else ""
    seen = f", {_word(one.get('connections'))} connections went there" if one.get("connections") else ""
    lines = [
        f"incident {_word(one.get('id'))}: {_word(one.get('spec'))} {_word(one.get('state'))}{target}{seen}"
    ]
    path = findings[0].get("path") or []
    if path:
        rule = path[-1]
        place = " ".join(_word(rule.get(key)) for key in ("family", "table", "chain"))
        lines.append(f"  by {place} #{_word(rule.get('handle'))}: {_word(rule.get('rule'))}")
    who = findings[0].get("culprit") or {}
    pairs = ((f"{key} {_word(who[key])}") for key in ("pod", "owner", "service", "container") if who.get(key))
    known = ", ".join(pairs)
    if known:
        confidence, sources = _word(who.get("confidence")), ", ".join(map(_word, who.get("sources") or ()))
        lines.append(f"  taken by: {known} [{confidence}: {sources}]")
    for said in who.get("contradictions") or ():
        lines.append(f"  but: {_word(said)}")
    if findings[0].get("cure"):
        lines.append(f"  what ends it: {escape(str(findings[0]['cure']), 400)}")
    for way in one.get("ways") or ():
        lines.append(f"  {_way(way)}")
    if who.get("process"):
        lines.append(f"  committed by: {escape(str(who['process']), COMMITTED)}")
    return lines


def _way(way: dict[str, Any]) -> str:
    config = f" (KUBECONFIG={_word(way['kubeconfig'])})" if way.get("kubeconfig") else ""
    by = f", certificate of {_word(way['issuer'])}" if way.get("issuer") else ""
    why = f": {_word(way['why'])}" if way.get("why") else ""
    return f"{_word(way.get('url'))}{config} {_word(way.get('answer'))}{why}{by}"


def _count(row: dict[str, Any]) -> str:
    destination = f" to {_word(row['destination'])}" if row.get("destination") else ""
    return (
        f"{_word(row.get('protocol'))}/{_word(row.get('port'))} {_word(row.get('outcome'))}{destination}: "
        f"{_word(row.get('connections'))}"
    )


def _word(value: object) -> str:
    return escape(str(value), 200)
