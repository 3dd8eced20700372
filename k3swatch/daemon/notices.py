"""The texts of events that are not about an incident. Values in, Events out; nothing else."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Sequence

from k3swatch import __version__
from k3swatch.config import Config
from k3swatch.errors import ConfigError, K3swatchError, SourceError
from k3swatch.incident.guarded import News, What
from k3swatch.k3s.find import Found
from k3swatch.model.finding import Observation, PortVerdict
from k3swatch.model.incident import Event, Incident, Notice
from k3swatch.model.port import ProtectedPort
from k3swatch.model.words import Attach, Mechanism, State
from k3swatch.view.escape import escape


def started(observation: Observation, incidents: Iterable[Incident], now: float) -> Event:
    """The daemon watches, and this is how the ports are. `incidents` are those that go on from before: of them
    nothing else is told, and nobody shall take the silence for a good sign."""
    ports = ", ".join(_port(verdict) for verdict in observation.verdicts)
    text = f"k3swatch {__version__} watches: {ports}"
    known = ", ".join(incident.id for incident in incidents)
    if known:
        text += f"; known from before: incident {known}"
    return Event(Notice.STARTED, "k3swatch", text, now)


def _port(verdict: PortVerdict) -> str:
    port, state = verdict.port, verdict.state
    name = "" if port.name == f"{port.protocol}-{port.port}" else f" ({port.name})"
    return f"{port.spec}{name} is {state if state in (State.DELIVERED, State.UNSERVED) else state.upper()}"


def because(error: Exception) -> str:
    """Why the daemon ends that did not mean to; of a bug, where it is."""
    if isinstance(error, K3swatchError):
        return str(error)
    at = traceback.extract_tb(error.__traceback__)[-1]
    return f"a bug, {type(error).__name__}: {error} ({at.filename}:{at.lineno})"


def stopped(why: str, now: float) -> Event:
    """The daemon ends."""
    return Event(Notice.STOPPED, "k3swatch", f"k3swatch stops: {why}; nobody watches the ports now", now)


def attached(attach: Attach, refused: Sequence[str], now: float) -> Event:
    """How connections are seen from now on, and why not in a better way."""
    text = f"connections are seen by {attach}"
    if refused:
        text += f"; not used: {'; '.join(refused)}"
    return Event(Notice.SIGHTED, "connections", text, now)


def not_handed_over(why: str, now: float) -> Event:
    """Connections were seen while no process ran, but not by whom this one can understand."""
    text = f"connections: those of the restart are not known: {why}"
    return Event(
        Notice.BLIND,
        "restart",
        text,
        now,
        "conntrack -L shows those that are still open",
    )


def loaded(config: Config, ports: Sequence[ProtectedPort], waiting: Sequence[str], now: float) -> Event:
    """A configuration was read again and is in force, but for the sections that are `waiting` for a restart."""
    text = f"configuration loaded: watches {', '.join(port.spec for port in ports)}"
    if waiting:
        text += f"; changes of {', '.join(waiting)} wait for a restart"
    return Event(Notice.CONFIG_LOADED, config.path or "defaults", text, now)


def k3s_moved(found: Found | None, ports: Sequence[ProtectedPort], now: float) -> Event:
    """K3s was found, or is told otherwise than before: other ports are in force."""
    who = found.said if found is not None else "no K3s"
    text = f"{who} found: watches {', '.join(port.spec for port in ports)}"
    return Event(Notice.CONFIG_LOADED, "k3s", text, now)


def rejected(error: ConfigError, now: float) -> Event:
    """A configuration was read again and is bad: the old one stays."""
    return Event(
        Notice.CONFIG_REJECTED,
        error.path,
        f"configuration rejected, the old one stays in force: {error}",
        now,
        "k3swatch config check shows one problem a line",
    )


_NEWS = {
    What.HELD: ("the guard neutralises it", "notice"),
    What.FREE: ("the guard does not stand before it any more", "warning"),
    What.GONE: ("what the guard neutralised is gone", "notice"),
}


def guarded(news: News) -> Event:
    """A cause that the guard neutralises has come, or gone, or the guard has."""
    port, finding, step = news.verdict.port, news.finding, news.finding.rule
    words, severity = _NEWS[news.what]
    what = "" if finding.mechanism is Mechanism.NONE else f"{finding.mechanism} "
    what += f"to {escape(finding.destination, 80)}" if finding.destination else str(finding.state)
    if step is not None:
        place = f"{step.family} {escape(step.table, 64)} {escape(step.chain, 64)} handle {step.handle}"
        what += f': rule "{escape(step.rule, 200)}" in {place}'
    text = f"{port.spec} ({escape(port.name, 64)}): {words}: {what}"
    fields = (
        ("K3SWATCH_PORT", port.spec),
        ("K3SWATCH_STATE", str(news.verdict.state)),
        ("K3SWATCH_SEVERITY", severity),
    )
    hint = "" if news.what is What.GONE else f"k3swatch restore {port.spec} says how to remove what made it"
    return Event(Notice.GUARDED, port.name, text, news.at, hint, fields)


def without_control(error: SourceError, now: float) -> Event:
    """Nobody can ask for the status; everything else works."""
    return Event(Notice.BLIND, "control", str(error), now, error.hint)


def unconfined(error: SourceError, now: float) -> Event:
    """The daemon could not give up all that only loading the probe needs; everything else works."""
    return Event(Notice.BLIND, "confinement", f"could not confine itself: {error}", now, error.hint)
