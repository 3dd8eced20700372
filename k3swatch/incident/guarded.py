"""Causes that the guard neutralises, over time: a notice when one comes and when it goes, never an alarm. Pure.

In go observations and `now`, out comes news. An observation whose ruleset could not be read tells nothing either way.
A cause that is written anew (kube-proxy, at each sync) is not news: only one that stayed away is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from k3swatch.incident.timer import Elapsed
from k3swatch.model.finding import Finding, Observation, PortVerdict

STAYS_AWAY = 10.0  # seconds after which a cause that is not seen any more is gone
MOST = 32  # causes of one port that are told; the others are counted by the metric

Key = tuple[str, tuple[str, ...]]


class What(Enum):
    """What became of a cause."""

    HELD = auto()  # it came, and the guard neutralises it
    FREE = auto()  # the guard does not stand before it any more
    GONE = auto()  # it is not there any more


@dataclass(frozen=True, slots=True)
class News:
    """One thing to tell: about which port, which cause (one of its findings), at `at`."""

    what: What
    verdict: PortVerdict
    finding: Finding
    at: float


@dataclass(slots=True)
class _Held:
    verdict: PortVerdict
    finding: Finding
    away_since: float | None = None


class GuardWatch:
    """What the guard keeps from acting, per port and cause."""

    def __init__(self) -> None:
        self._time = Elapsed()
        self._held: dict[Key, _Held] = {}

    def observe(self, observation: Observation, now: float) -> list[News]:
        """Take one evaluation of all ports."""
        elapsed = self._time.advance(now)
        if observation.generation is None:
            return []
        events: list[News] = []
        seen: set[Key] = set()
        active: set[Key] = set()
        for verdict in observation.verdicts:
            for finding in verdict.findings:
                key = (verdict.port.name, finding.cause)
                if not finding.neutralised:
                    active.add(key)
                elif key not in seen:
                    seen.add(key)
                    events += self._neutralised(key, verdict, finding, now)
        verdicts = {verdict.port.name: verdict for verdict in observation.verdicts}
        for key, held in list(self._held.items()):
            if key[0] not in verdicts:
                del self._held[key]
            elif key in seen:
                held.away_since = None
            elif key in active:
                del self._held[key]
                events.append(News(What.FREE, verdicts[key[0]], held.finding, now))
            elif held.away_since is None:
                held.away_since = elapsed
        return events

    def tick(self, now: float) -> list[News]:
        """Tell of what has stayed away."""
        elapsed = self._time.advance(now)
        gone = [
            key
            for key, held in self._held.items()
            if held.away_since is not None and elapsed >= held.away_since + STAYS_AWAY
        ]
        told = [self._held.pop(key) for key in gone]
        return [News(What.GONE, held.verdict, held.finding, now) for held in told]

    def deadline(self) -> float | None:
        """The `now` at which `tick` has something to do; None when nothing is pending."""
        due = [held.away_since + STAYS_AWAY for held in self._held.values() if held.away_since is not None]
        return self._time.wall(min(due)) if due else None

    def _neutralised(self, key: Key, verdict: PortVerdict, finding: Finding, now: float) -> list[News]:
        if key in self._held:
            return []
        if sum(1 for port, _ in self._held if port == key[0]) >= MOST:
            return []
        self._held[key] = _Held(verdict, finding)
        return [News(What.HELD, verdict, finding, now)]
