"""What `history` prints: one block for each incident, newest last, with what was told of it. Pure.

Times are the reader's local ones, as in `journalctl`. The store is a file: its texts are escaped like everything else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo

from k3swatch.model.history import History, Past, Told
from k3swatch.model.incident import Change, Incident
from k3swatch.model.words import State
from k3swatch.view import document, who
from k3swatch.view.document import Document
from k3swatch.view.escape import escape
from k3swatch.view.lines import coloured, some
from k3swatch.view.message import destinations, dropped, duration, severity_of
from k3swatch.view.ways import works

SCHEMA = 1
BAD = (State.DIVERTED, State.BLOCKED)


def json(history: History, since: float = 0.0) -> str:
    """What `history --format json` prints. Times are seconds since the epoch."""
    found: Document = {
        "schema": SCHEMA,
        "since": since or None,
        "omitted": history.omitted,
        "unreadable": history.unreadable,
        "incidents": [
            document.incident(past.incident) | {"transitions": [_transition(told) for told in past.told]}
            for past in history.pasts
        ],
    }
    return document.dumps(found)


def _transition(told: Told) -> Document:
    return {"at": told.at, "change": told.change, "state": told.state, "message": told.message}


def text(
    history: History, now: float, since: float = 0.0, colour: bool = False, zone: tzinfo | None = None
) -> str:
    """The timeline. `zone` None: the local one."""
    lines: list[str] = []
    if history.omitted:
        lines.append(f"{history.omitted} older ones are not shown")
    for past in history.pasts:
        lines += ([""] if lines else []) + list(_block(past, now, colour, zone))
    return "\n".join([*lines, *([""] if lines else []), _total(history, since, zone)])


def _block(past: Past, now: float, colour: bool, zone: tzinfo | None) -> Iterator[str]:
    one = past.incident
    opened = _when(one.opened_at, zone)
    found = [escape(each, 80) for each in destinations(one.findings)]
    target = f" to {some(found, 3)}" if found else ""
    maybe = "" if one.state is State.UNKNOWN or any(each.certain for each in one.findings) else "maybe "
    state = coloured(f"{maybe}{one.state.upper()}", one.state, colour)
    yield f"{opened}  {escape(one.spec, 16)} ({escape(one.port, 64)}) {state}{target}"
    yield f"    {'; '.join(_facts(one, now))}"
    yield f"    {_cause(one)}"
    yield from (f"    {line}" for line in (*_who(one), *_ways(one)))
    day = opened[:10]
    for told in past.told:
        when = _when(told.at, zone)
        state = coloured(escape(told.state, 16), _state(told.state), colour)
        still = ", by another cause" if told.change == Change.RESOLVED and _state(told.state) in BAD else ""
        by = _undone(told.message) if told.change == Change.RESOLVED else ""
        yield f"    {when.removeprefix(day).strip()}  {escape(told.change, 16):<9}  the port is {state}{still}{by}"
        day = when[:10]


def _undone(message: str) -> str:
    """`, undone by k3swatch (pid 42)`: as it was told, in words of ours."""
    found = re.search(r", undone by [^()]{1,64} \(pid \d{1,10}\)", message)
    return escape(found[0], 100) if found else ""


def _facts(one: Incident, now: float) -> Iterator[str]:
    if one.resolved_at is None:
        yield f"OPEN for {duration(now - one.opened_at)}"
    else:
        yield f"lasted {duration(one.resolved_at - one.opened_at)}"
    if one.connections or one.confirmed_at is not None:
        yield f"{one.connections} connection{'s' * (one.connections != 1)} went there"
    if one.drops:
        yield dropped(one)
    if one.flaps:
        yield f"came back {one.flaps} time{'s' * (one.flaps != 1)}"
    if severity_of(one) == "info":
        yield "no alarm: waited behind another cause, or met only some"
    yield f"incident {escape(one.id, 16)}"


def _cause(one: Incident) -> str:
    step = one.findings[0].rule
    if step is not None:
        place = f"{escape(step.family, 16)} {escape(step.table, 64)} {escape(step.chain, 64)}"
        comment = f' comment "{escape(step.comment, 100)}"' if step.comment else ""
        return f"by {place} handle {step.handle}: {escape(step.rule, 200)}{comment}"
    why = next((each.why for each in one.findings if each.why), None)
    return f"by {one.findings[0].mechanism}" + (f": {escape(why, 200)}" if why else ", no rule explains it")


def _who(one: Incident) -> Iterator[str]:
    if by := who.committed(one.findings):
        yield by
    elif one.committer:
        yield f"committed by {escape(one.committer[1], 32)} (pid {one.committer[0]})"
    if culprit := who.receiver(one.findings):
        yield f"taken by {who.taken_by(culprit)} {who.sure(culprit)}"


def _ways(one: Incident) -> Iterator[str]:
    if said := works(one.ways):
        yield said if one.open else f"while it lasted: {said}"


def _total(history: History, since: float, zone: tzinfo | None) -> str:
    count = len(history.pasts)
    still = sum(past.incident.open for past in history.pasts)
    words = f"{count or 'no'} incident{'s' * (count != 1)}"
    words += f", {still} open" if still else ""
    words += f", since {_when(since, zone)}" if since else ""
    words += f"; {history.unreadable} could not be read" if history.unreadable else ""
    return words


def _state(word: str) -> State:
    """For its colour: what is not known is shown as `unknown`."""
    return State(word) if word in set(State) else State.UNKNOWN


def _when(at: float, zone: tzinfo | None) -> str:
    return f"{datetime.fromtimestamp(at, UTC).astimezone(zone):%Y-%m-%d %H:%M:%S}"
