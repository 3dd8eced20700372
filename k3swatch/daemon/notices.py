"""The texts of events that are not about an incident. Values in, Events out; nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from k3swatch import __version__
from k3swatch.config import Config
from k3swatch.errors import ConfigError, SourceError
from k3swatch.model.incident import Event, Notice
from k3swatch.model.words import Attach


def started(config: Config, now: float) -> Event:
    """The daemon began to watch."""
    ports = ", ".join(port.spec for port in config.ports)
    return Event(Notice.STARTED, "k3swatch", f"k3swatch {__version__} watches {ports}", now)


def stopped(why: str, now: float) -> Event:
    """The daemon ends, on purpose."""
    return Event(Notice.STOPPED, "k3swatch", f"k3swatch stops: {why}; nobody watches the ports now", now)


def attached(attach: Attach, refused: Sequence[str], now: float) -> Event:
    """How connections are seen from now on, and why not in a better way."""
    text = f"connections are seen by {attach}"
    if refused:
        text += f"; not used: {'; '.join(refused)}"
    return Event(Notice.SIGHTED, "connections", text, now)


def loaded(config: Config, waiting: Sequence[str], now: float) -> Event:
    """A configuration was read again and is in force, but for the sections that are `waiting` for a restart."""
    text = f"configuration loaded: watches {', '.join(port.spec for port in config.ports)}"
    if waiting:
        text += f"; changes of {', '.join(waiting)} wait for a restart"
    return Event(Notice.CONFIG_LOADED, config.path or "defaults", text, now)


def rejected(error: ConfigError, now: float) -> Event:
    """A configuration was read again and is bad: the old one stays."""
    return Event(
        Notice.CONFIG_REJECTED,
        error.path,
        f"configuration rejected, the old one stays in force: {error}",
        now,
        "k3swatch config check shows one problem a line",
    )


def without_control(error: SourceError, now: float) -> Event:
    """Nobody can ask for the status; everything else works."""
    return Event(Notice.BLIND, "control", str(error), now, error.hint)


def unconfined(error: SourceError, now: float) -> Event:
    """The daemon could not give up all that only loading the probe needs; everything else works."""
    return Event(Notice.BLIND, "confinement", f"could not confine itself: {error}", now, error.hint)
