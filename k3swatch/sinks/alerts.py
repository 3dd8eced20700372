"""What Alertmanager should know now: pure bookkeeping, `now` is an argument.

Alertmanager forgets: an alert that is not repeated is resolved, and a resolved one may have been missed. So all
alerts are sent again and again, firing ones with an explicit end in the future, resolved ones for five minutes.

One alert for each place an incident diverts to. Its labels are its identity: the same that the Prometheus rules in
packaging/prometheus/ make, so that both ways end in one notification. They hold nothing that changes while it lasts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from k3swatch.model.incident import Incident, Transition
from k3swatch.model.words import State
from k3swatch.view.escape import escape
from k3swatch.view.message import description, destinations, pod, severity_of, summary
from k3swatch.view.ways import works

RESEND_RESOLVED = 300.0
PLACES = 8  # destinations of one incident that get an alert of their own
LIMIT = 256  # alerts

NAMES = {State.DIVERTED: "K3swatchPortDiverted", State.BLOCKED: "K3swatchPortBlocked"}
UNKNOWN = "K3swatchPortUnknown"
RUNBOOK = "/usr/share/doc/k3swatch/runbooks/"  # where the package puts docs/runbooks

Key = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Alert:
    annotations: dict[str, str]
    starts_at: float
    ended_at: float | None = None


class Board:
    """Alerts by incident and identity."""

    def __init__(self, host: str, incidents: Iterable[Incident] = ()) -> None:
        """`incidents` are open ones from before a restart: they fire on."""
        self._host = escape(host, 128)
        self._alerts: dict[str, dict[Key, _Alert]] = {}
        for incident in incidents:
            self._alerts[incident.id] = dict(self._of(incident))

    def take(self, transition: Transition) -> bool:
        """Note a transition; False when there is no room for it."""
        incident = transition.incident
        current = dict(self._of(incident)) if incident.open else {}
        known = self._alerts.setdefault(incident.id, {})
        for key, alert in known.items():
            if key not in current and alert.ended_at is None:
                known[key] = replace(alert, ended_at=transition.at)
        room = LIMIT - sum(len(alerts) for alerts in self._alerts.values() if alerts is not known)
        known.update(current)
        fits = len(known) <= room
        for key in list(known)[max(0, room) :]:
            del known[key]
        return fits

    def payload(self, now: float, hold: float) -> list[dict[str, Any]]:
        """The body of POST /api/v2/alerts; firing ones end at `now + hold` unless they are sent again."""
        merged: dict[Key, _Alert] = {}
        for name, alerts in list(self._alerts.items()):
            for key, alert in list(alerts.items()):
                # a clock that was set back must not keep it for ever
                if alert.ended_at is not None and abs(now - alert.ended_at) > RESEND_RESOLVED:
                    del alerts[key]
                elif key not in merged or alert.ended_at is None:
                    merged[key] = alert
            if not alerts:
                del self._alerts[name]
        return [self._json(key, alert, now, hold) for key, alert in merged.items()]

    def _json(self, key: Key, alert: _Alert, now: float, hold: float) -> dict[str, Any]:
        ends = alert.ended_at if alert.ended_at is not None else now + hold
        return {
            "labels": dict(key),
            "annotations": alert.annotations,
            # Alertmanager refuses an end before the start, which a stepped clock would make
            "startsAt": _time(min(alert.starts_at, ends, now)),
            "endsAt": _time(ends),
        }

    def _of(self, incident: Incident) -> Iterator[tuple[Key, _Alert]]:
        step = incident.findings[0].rule
        annotations = {
            "summary": f"{summary(incident)} on {self._host}",
            "description": description(incident),
            "incident": incident.id,
            "rule": escape(step.rule) if step else "",
            "chain": escape(f"{step.family} {step.table} {step.chain}") if step else "",
            "pod": escape(pod(incident) or ""),
            "ways": works(incident.ways),
            "runbook_url": f"{RUNBOOK}{NAMES.get(incident.state, UNKNOWN)}.md",
        }
        annotations = {name: value for name, value in annotations.items() if value}
        for destination in destinations(incident.findings)[:PLACES] or [""]:
            labels = {
                "alertname": NAMES.get(incident.state, UNKNOWN),
                "instance": self._host,
                "port": escape(incident.port, 64),
                "mechanism": str(incident.findings[0].mechanism) if incident.state is State.DIVERTED else "",
                "destination": escape(destination, 64),
                "severity": severity_of(incident),
            }
            key = tuple(sorted((name, value) for name, value in labels.items() if value))
            yield key, _Alert(annotations, incident.opened_at)


def _time(seconds: float) -> str:
    return (
        datetime.fromtimestamp(max(0.0, seconds), UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )
