"""A finding over time. The engine in `incident/` makes these; sinks show them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from k3swatch.model.finding import Finding, PortVerdict
from k3swatch.model.way import Way
from k3swatch.model.words import State


class Change(StrEnum):
    """Why a transition was made: the word in the journal, in metrics and in tests."""

    OPENED = "opened"  # a cause appeared
    CONFIRMED = "confirmed"  # a real connection was seen going there
    CHANGED = "changed"  # same cause, but other addresses, conditions, certainty or shadowing
    RESOLVED = "resolved"  # the cause is gone
    FLAPPING = "flapping"  # it comes and goes; told once, then damped until it is stable


@dataclass(frozen=True, slots=True)
class Incident:
    """One cause that takes (or may take) a protected port. Times are CLOCK_REALTIME seconds.

    `findings` are all current findings with this cause (one per vantage and condition). `id` is the same in the
    journal, in Alertmanager, in history: 12 hex digits, stable across restarts of the daemon.
    """

    id: str
    port: str  # ProtectedPort.name
    spec: str  # tcp/6443
    severity: str
    state: State  # diverted, blocked or unknown
    cause: tuple[str, ...]
    findings: tuple[Finding, ...]
    opened_at: float
    updated_at: float
    confirmed_at: float | None = None
    resolved_at: float | None = None
    connections: int = 0  # diverted connections counted so far
    drops: tuple[str, ...] = ()  # why some of them were dropped on this host: names of enum skb_drop_reason
    generation: int | None = None
    committer: tuple[int, str] | None = None  # pid, comm that committed the rule
    flaps: int = 0
    flow_only: bool = False  # known from connections, not from the rules: only silence resolves it
    last_flow_at: float | None = None
    ways: tuple[Way, ...] = ()  # to the API, tried while it is taken

    @property
    def open(self) -> bool:
        """Whether the cause is still there."""
        return self.resolved_at is None


@dataclass(frozen=True, slots=True)
class Transition:
    """One step of one incident, with the port's verdict after it. This is what sinks receive.

    `verdict` tells what remains: a resolved incident does not mean that the port is delivered again.
    """

    change: Change
    incident: Incident
    verdict: PortVerdict
    at: float
    committed_at: float | None = None  # commit that caused it; `at - committed_at` is the detection time
    previous: Incident | None = None
    committer: tuple[int, str] | None = None  # pid, comm of that commit: who took the rule out again


class Notice(StrEnum):
    """Events that are not about an incident; each has its own journal MESSAGE_ID."""

    BLIND = "blind"  # a source stopped telling (or never did)
    SIGHTED = "sighted"  # it tells again
    LISTENER_CHANGED = "listener_changed"  # nobody listens any more, or again
    CONFIG_REJECTED = "config_rejected"
    CONFIG_LOADED = "config_loaded"
    STARTED = "started"
    STOPPED = "stopped"
    GUARDED = "guarded"  # the guard neutralises a cause, or does not any more
    SINK_FAILED = "sink_failed"  # somebody who should be told cannot be told
    SINK_RECOVERED = "sink_recovered"


@dataclass(frozen=True, slots=True)
class Event:
    """One notice: what, about which source or port, in one line."""

    notice: Notice
    subject: str
    message: str
    at: float
    hint: str = ""
    fields: tuple[tuple[str, str], ...] = field(default=())
