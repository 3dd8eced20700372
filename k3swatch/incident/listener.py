"""Unserved over time: nobody listens on a protected port. A notice, and a warning when it lasts. Pure.

K3s restarts; that is no alarm. In go observations and `now`, out come events. An observation whose ruleset could not
be read tells nothing about listeners either way.
"""

from __future__ import annotations

from dataclasses import dataclass

from k3swatch.incident.timer import Elapsed
from k3swatch.model.finding import Observation, PortVerdict
from k3swatch.model.incident import Event, Notice

LASTS = 60.0  # seconds after which nobody listening is worth a warning


@dataclass(slots=True)
class _Silence:
    verdict: PortVerdict
    since: float
    warned: bool = False


class ListenerWatch:
    """Who has stopped listening, per port."""

    def __init__(self) -> None:
        self._time = Elapsed()
        self._silent: dict[str, _Silence] = {}

    def observe(self, observation: Observation, now: float) -> list[Event]:
        """Take one evaluation of all ports. A port that was served from the start says nothing."""
        elapsed = self._time.advance(now)
        if observation.generation is None:
            return self._overdue(now)
        events = []
        for verdict in observation.verdicts:
            name = verdict.port.name
            if verdict.unserved and name not in self._silent:
                self._silent[name] = _Silence(verdict, elapsed)
                events.append(_event(verdict, now, "nobody listens", "unserved", "notice"))
            elif not verdict.unserved and name in self._silent:
                silence = self._silent.pop(name)
                words = f"somebody listens again, after {elapsed - silence.since:.0f} s"
                events.append(_event(verdict, now, words, verdict.state, "notice"))
        watched = {verdict.port.name for verdict in observation.verdicts}
        for name in [name for name in self._silent if name not in watched]:
            del self._silent[name]
        return events + self._overdue(now)

    def tick(self, now: float) -> list[Event]:
        """Warn of what has lasted."""
        self._time.advance(now)
        return self._overdue(now)

    def deadline(self) -> float | None:
        """The `now` at which `tick` has something to do; None when nothing is pending."""
        due = [silence.since + LASTS for silence in self._silent.values() if not silence.warned]
        return self._time.wall(min(due)) if due else None

    def _overdue(self, now: float) -> list[Event]:
        events = []
        for silence in self._silent.values():
            if not silence.warned and self._time.seconds >= silence.since + LASTS:
                silence.warned = True
                words = f"nobody has listened for {LASTS:.0f} s"
                events.append(_event(silence.verdict, now, words, "unserved", "warning"))
        return events


def _event(verdict: PortVerdict, now: float, words: str, state: str, severity: str) -> Event:
    port = verdict.port
    hint = "is k3s running? `systemctl status k3s`" if state == "unserved" else ""
    fields = (("K3SWATCH_PORT", port.spec), ("K3SWATCH_STATE", str(state)), ("K3SWATCH_SEVERITY", severity))
    return Event(Notice.LISTENER_CHANGED, port.name, f"{port.spec} ({port.name}): {words}", now, hint, fields)
