"""The life of one incident, as a table.

Two rules: everything that decides which change is told is in this table, and the table knows nothing of findings,
ports or time. `engine.py` turns what it sees into a `Signal` and looks up what follows.

Theory of operation. An incident is one cause on one port. It is told when it opens, once when a real connection
confirms it, when it changes materially, and when its cause is gone. A cause that comes back within the memory of
its incident is the same incident. One that comes back again and again is told once as flapping; from then on only
its first confirmation is told, until it has been quiet for a while: then the world hears what it came to.

`hidden` is not `gone`: what cannot be read now keeps what was known.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from k3swatch.errors import K3swatchError
from k3swatch.model.incident import Change


class Phase(StrEnum):
    """Where an incident stands."""

    ABSENT = "absent"  # never seen, or forgotten
    OPEN = "open"  # the cause is there, and that was told
    RESOLVED = "resolved"  # the cause is gone, that was told, and the incident is still remembered
    FLAPPING = "flapping"  # the cause is there, but it comes and goes: quiet
    PAUSED = "paused"  # the same, while the cause is away


class Signal(StrEnum):
    """What can happen to it."""

    SEEN = "seen"  # the cause is there; nothing that matters changed
    DIFFERENT = "different"  # the cause is there, with other addresses, conditions, certainty, shadow or path
    GONE = "gone"  # it was looked for and is not there
    HIDDEN = "hidden"  # it could not be looked for
    FLOW = "flow"  # the first real connection that went there
    RELAPSED = "relapsed"  # seen again, for the third time in ten minutes
    SETTLED = "settled"  # neither came nor went for a minute
    EXPIRED = "expired"  # resolved for longer than it is remembered


class IllegalMove(K3swatchError):
    """A signal that cannot happen in this phase: a defect of the caller. Nothing was changed."""


P, S, C = Phase, Signal, Change

TABLE: Final[dict[Phase, dict[Signal, tuple[Phase, Change | None]]]] = {
    P.ABSENT: {
        S.SEEN: (P.OPEN, C.OPENED),
    },
    P.OPEN: {
        S.SEEN: (P.OPEN, None),
        S.DIFFERENT: (P.OPEN, C.CHANGED),
        S.GONE: (P.RESOLVED, C.RESOLVED),
        S.HIDDEN: (P.OPEN, None),
        S.FLOW: (P.OPEN, C.CONFIRMED),
    },
    P.RESOLVED: {
        S.SEEN: (P.OPEN, C.OPENED),
        S.RELAPSED: (P.FLAPPING, C.FLAPPING),
        S.GONE: (P.RESOLVED, None),
        S.HIDDEN: (P.RESOLVED, None),
        S.FLOW: (P.RESOLVED, None),  # it happened before the cause went away, and is only counted
        S.EXPIRED: (P.ABSENT, None),
    },
    P.FLAPPING: {
        S.SEEN: (P.FLAPPING, None),
        S.DIFFERENT: (P.FLAPPING, None),
        S.GONE: (P.PAUSED, None),
        S.HIDDEN: (P.FLAPPING, None),
        S.FLOW: (P.FLAPPING, C.CONFIRMED),
        S.SETTLED: (P.OPEN, C.CHANGED),
    },
    P.PAUSED: {
        S.SEEN: (P.FLAPPING, None),
        S.RELAPSED: (P.FLAPPING, None),
        S.GONE: (P.PAUSED, None),
        S.HIDDEN: (P.PAUSED, None),
        S.FLOW: (P.PAUSED, None),
        S.SETTLED: (P.RESOLVED, C.RESOLVED),
    },
}


def move(phase: Phase, signal: Signal) -> tuple[Phase, Change | None]:
    """The phase that follows, and the change to tell (None: nothing). IllegalMove when the table has no such row."""
    try:
        return TABLE[phase][signal]
    except KeyError:
        raise IllegalMove(f"incident: {signal} while {phase}") from None
