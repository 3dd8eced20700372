"""Incidents as JSON and back, for the store. Pure.

Reading is lenient about what it does not know (a newer version's field is skipped, a missing one has its default)
and strict about what it uses: DecodeError, never a half-built incident.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from types import NoneType
from typing import Any

from k3swatch.errors import DecodeError
from k3swatch.model.finding import Culprit, Finding, Orphan, PathStep
from k3swatch.model.incident import Incident
from k3swatch.model.process import Parent, Process
from k3swatch.model.way import Answer, Way
from k3swatch.model.words import Evidence, Family, Mechanism, State, Vantage

Document = dict[str, Any]


def encode(incident: Incident) -> str:
    """One line of ASCII JSON."""
    return json.dumps(asdict(incident), default=sorted, separators=(",", ":"))


def decode(text: str) -> Incident:
    """The incident that `encode` wrote. DecodeError when it is none."""
    try:
        document = json.loads(text)
        return _incident(document)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise DecodeError(f"stored incident: {type(error).__name__}: {error}") from None


_PLAIN: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str | None": (str, NoneType),
    "int | None": (int, NoneType),
    "float | None": (int, float, NoneType),
}


def _known(kind: type, document: Document) -> Document:
    """The values that are fields of the dataclass `kind`; TypeError for a plain one of another type."""
    values = {}
    for each in fields(kind):
        if each.name in document:
            value = values[each.name] = document[each.name]
            if not isinstance(value, _PLAIN.get(str(each.type), (object,))):
                raise TypeError(f"{each.name} is {type(value).__name__}, not {each.type}")
    return values


def _incident(document: Document) -> Incident:
    values = _known(Incident, document)
    committer = values.get("committer")
    values["state"] = State(values["state"])
    values["cause"] = _strings(values["cause"])
    values["drops"] = _strings(values.get("drops", ()))
    values["findings"] = tuple(_finding(each) for each in values["findings"])
    values["committer"] = (int(committer[0]), str(committer[1])) if committer else None
    values["ways"] = tuple(_way(each) for each in values.get("ways", ()))
    protocol, _, number = values["spec"].partition("/")
    if protocol not in ("tcp", "udp") or not number.isdecimal() or not values["findings"]:
        raise ValueError(f"spec {values['spec']!r}")
    return Incident(**values)


def _finding(document: Document) -> Finding:
    values = _known(Finding, document)
    culprit, anchor = values.get("culprit"), values.get("anchor")
    values["state"] = State(values["state"])
    values["mechanism"] = Mechanism(values["mechanism"])
    values["vantage"] = Vantage(values["vantage"])
    values["family"] = Family(values["family"])
    values["addresses"] = _strings(values["addresses"])
    values["conditions"] = _strings(values.get("conditions", ()))
    values["evidence"] = frozenset(Evidence(each) for each in values.get("evidence", ()))
    values["path"] = tuple(PathStep(**_known(PathStep, each)) for each in values.get("path", ()))
    values["anchor"] = _anchor(anchor) if anchor else None
    values["culprit"] = _culprit(culprit) if culprit else None
    return Finding(**values)


def _culprit(document: Document) -> Culprit:
    values = _known(Culprit, document)
    committed = values.get("committed")
    values["committed"] = _process(committed) if committed else None
    values["sources"] = _strings(values.get("sources", ()))
    values["notes"] = _strings(values.get("notes", ()))
    values["contradictions"] = _strings(values.get("contradictions", ()))
    values["orphan"] = Orphan(values["orphan"]) if values.get("orphan") else None
    return Culprit(**values)


def _process(document: Document) -> Process:
    values = _known(Process, document)
    values["arguments"] = _strings(values.get("arguments", ()))
    values["sources"] = _strings(values.get("sources", ()))
    values["parents"] = tuple(Parent(**_known(Parent, each)) for each in values.get("parents", ()))
    return Process(**values)


def _way(document: Document) -> Way:
    values = _known(Way, document)
    values["answer"] = Answer(values["answer"])
    values["names"] = _strings(values.get("names", ()))
    return Way(**values)


def _anchor(value: Any) -> tuple[str, str, str]:
    family, table, chain = _strings(value)
    return family, table, chain


def _strings(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not all(isinstance(each, str) for each in value):
        raise TypeError("not a list of texts")
    return tuple(value)
