"""What happened, as the store remembers it. `sinks/past.py` reads it, `view/history.py` shows it."""

from __future__ import annotations

from dataclasses import dataclass

from k3swatch.model.incident import Incident


@dataclass(frozen=True, slots=True)
class Told:
    """One row of history: what was told, when (CLOCK_REALTIME seconds). `state` is the port's state after it."""

    at: float
    incident: str
    port: str
    change: str
    state: str
    message: str


@dataclass(frozen=True, slots=True)
class Past:
    """One incident as it is now, or as it ended, and what was told of it, oldest first.

    `told` may lack the beginning: the store keeps a bounded number of rows.
    """

    incident: Incident
    told: tuple[Told, ...]


@dataclass(frozen=True, slots=True)
class History:
    """Incidents, newest last. `omitted` older ones and `unreadable` ones are not among them."""

    pasts: tuple[Past, ...]
    omitted: int = 0
    unreadable: int = 0
