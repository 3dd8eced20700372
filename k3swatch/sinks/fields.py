"""Transitions and events as journal fields. Names and meanings: k3swatch/view/catalog.py and docs/journal.md."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from k3swatch.model.finding import Culprit, Finding
from k3swatch.model.incident import Change, Event, Incident, Notice, Transition
from k3swatch.model.process import Process
from k3swatch.sinks.native import valid
from k3swatch.view.catalog import COPIED, ENTRIES, Kind, kind_of, kind_of_notice
from k3swatch.view.cure import cure
from k3swatch.view.escape import escape
from k3swatch.view.message import destinations, message, severity_of
from k3swatch.view.ways import works

IDENTIFIER = "k3swatch"
LIMIT = 16  # repeated fields of one name

CRITICAL, ERROR, WARNING, NOTICE, INFO = 2, 3, 4, 5, 6  # syslog(3)

_SEVERITY = {"critical": CRITICAL, "warning": WARNING, "info": NOTICE}
_NOTICE = {
    Notice.BLIND: ERROR,
    Notice.SIGHTED: NOTICE,
    Notice.LISTENER_CHANGED: NOTICE,
    Notice.CONFIG_REJECTED: ERROR,
    Notice.CONFIG_LOADED: INFO,
    Notice.STARTED: INFO,
    Notice.STOPPED: NOTICE,
    Notice.GUARDED: NOTICE,
    Notice.SINK_FAILED: ERROR,
    Notice.SINK_RECOVERED: NOTICE,
}

Field = tuple[str, str]


def priority(transition: Transition) -> int:
    """The syslog priority of a transition: an end is a notice, a change at most a warning."""
    if transition.change is Change.RESOLVED:
        return NOTICE
    loud = _SEVERITY.get(severity_of(transition.incident), WARNING)
    return max(loud, WARNING) if transition.change is Change.CHANGED else loud


def event_priority(event: Event) -> int:
    """The syslog priority of an event: its own severity when it has one, else that of its kind."""
    own = dict(event.fields).get("K3SWATCH_SEVERITY")
    return _SEVERITY.get(own, NOTICE) if own and own != "notice" else _NOTICE[event.notice]


def of_transition(transition: Transition) -> list[Field]:
    """All fields of one step of one incident, MESSAGE first."""
    incident = transition.incident
    resolved = transition.change is Change.RESOLVED
    fields = [
        *_head(kind_of(transition), message(transition), priority(transition)),
        ("K3SWATCH_PORT", incident.spec),
        ("K3SWATCH_NAME", incident.port),
        ("K3SWATCH_STATE", transition.verdict.state if resolved else incident.state),
        ("K3SWATCH_CHANGE", transition.change),
        ("K3SWATCH_INCIDENT", incident.id),
        ("K3SWATCH_SEVERITY", severity_of(incident)),
        *_findings(incident.findings),
        ("K3SWATCH_CONNECTIONS", str(incident.connections)),
        *(("K3SWATCH_DROP_REASON", why) for why in incident.drops),
        ("K3SWATCH_FLAPS", str(incident.flaps)),
        *_origin(incident),
    ]
    return [*fields, *_copies(fields)]


def of_event(event: Event) -> list[Field]:
    """All fields of one event, MESSAGE first."""
    text = f"{event.message} ({event.hint})" if event.hint else event.message
    head = _head(kind_of_notice(event.notice), text, event_priority(event))
    own = [("K3SWATCH_CHANGE", str(event.notice)), ("K3SWATCH_SUBJECT", event.subject)]
    hint = [("K3SWATCH_HINT", event.hint)] if event.hint else []
    return [*head, *own, *hint, *((name, value) for name, value in event.fields if valid(name))]


def _copies(fields: list[Field]) -> Iterator[Field]:
    """Values for the catalog's texts. Some end in commands that people paste, and a chain may be called `;reboot`."""
    values = dict(reversed(fields))  # the first of a name counts
    for name in COPIED:
        value = values.get(f"K3SWATCH_{name}")
        yield f"WATCH_{name}", shlex.quote(escape(value)) if value else "?"


def _head(kind: Kind, text: str, number: int) -> list[Field]:
    return [
        ("MESSAGE", text),
        ("MESSAGE_ID", ENTRIES[kind].id),
        ("PRIORITY", str(number)),
        ("SYSLOG_IDENTIFIER", IDENTIFIER),
    ]


def _findings(findings: tuple[Finding, ...]) -> Iterator[Field]:
    first = findings[0]
    yield "K3SWATCH_MECHANISM", first.mechanism
    yield "K3SWATCH_CERTAIN", str(int(any(finding.certain for finding in findings)))
    yield "K3SWATCH_SHADOWED", str(int(all(finding.shadowed for finding in findings)))
    several = {
        "K3SWATCH_DESTINATION": destinations(findings),
        "K3SWATCH_VANTAGE": [str(finding.vantage) for finding in findings],
        "K3SWATCH_ADDRESSES": [address for finding in findings for address in finding.addresses],
        "K3SWATCH_CONDITIONS": [condition for finding in findings for condition in finding.conditions],
        "K3SWATCH_WHY": [finding.why for finding in findings if finding.why],
    }
    for name, values in several.items():
        for value in list(dict.fromkeys(values))[:LIMIT]:
            yield name, value
    step = first.rule
    if step is not None:
        yield "K3SWATCH_RULE", step.rule
        yield "K3SWATCH_FAMILY", step.family
        yield "K3SWATCH_TABLE", step.table
        yield "K3SWATCH_CHAIN", step.chain
        yield "K3SWATCH_HANDLE", str(step.handle)
        if step.comment:
            yield "K3SWATCH_COMMENT", step.comment
    for each in first.path[:LIMIT]:
        yield "K3SWATCH_PATH", f"{each.family} {each.table} {each.chain} handle {each.handle}: {each.rule}"
    who = next((finding.culprit for finding in findings if finding.culprit), None)
    if who is not None:
        for key, text in (("POD", who.pod), ("OWNER", who.owner), ("SERVICE", who.service)):
            if text:
                yield f"K3SWATCH_{key}", text
        yield from _more(who)
    remedy = next((text for finding in findings if (text := cure(finding))), None)
    if remedy:
        yield "K3SWATCH_CURE", remedy


def _more(who: Culprit) -> Iterator[Field]:
    if who.receiver:
        yield "K3SWATCH_CONFIDENCE", f"{who.confidence}: {', '.join(who.sources)}"
        yield "K3SWATCH_LEFT_BEHIND", str(int(who.left_behind))
    for key, text in (("CONTAINER", who.container), ("FORWARDS", who.forwards), ("PROCESS", who.process)):
        if text:
            yield f"K3SWATCH_{key}", text
    if who.orphan:
        yield "K3SWATCH_ORPHAN", who.orphan
    for said in who.contradictions[:LIMIT]:
        yield "K3SWATCH_CONTRADICTION", said
    if who.committed is not None:
        yield from _committed(who.committed)
    for note in who.notes[:LIMIT]:
        yield "K3SWATCH_NOTE", note


def _committed(by: Process) -> Iterator[Field]:
    for key, text in (("EXE", by.exe), ("UNIT", by.unit), ("CMDLINE", shlex.join(by.arguments))):
        if text:
            yield f"K3SWATCH_{key}", text
    for parent in by.parents[:LIMIT]:
        yield "K3SWATCH_PARENT", f"{parent.comm} (pid {parent.pid}{f'; {parent.exe}' if parent.exe else ''})"
    yield "K3SWATCH_PROCESS_CONFIDENCE", f"{by.confidence}: {', '.join(by.sources)}"


def _origin(incident: Incident) -> Iterator[Field]:
    if incident.ways:
        yield "K3SWATCH_WAYS", works(incident.ways)
    for way in incident.ways[:LIMIT]:
        if way.works:
            yield "K3SWATCH_WAY", f"{way.url} KUBECONFIG={way.kubeconfig}" if way.kubeconfig else way.url
    if incident.generation is not None:
        yield "K3SWATCH_GENERATION", str(incident.generation)
    if incident.committer is not None:
        yield "K3SWATCH_PID", str(incident.committer[0])
        yield "K3SWATCH_COMM", incident.committer[1]
