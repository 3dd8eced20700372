"""What all sinks have in common, so that the daemon can treat them alike.

A sink tells somebody. It never blocks the daemon's loop and never raises: what it could not tell is counted in
`failures`, and said through the `Report` it was given. All three methods are called from the daemon's thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from k3swatch.model.finding import Observation
from k3swatch.model.incident import Event, Transition

Report = Callable[[Event], None]  # called from any thread; must not block


def unsaid(event: Event) -> None:
    """The Report of a sink whose troubles nobody wants to hear of (tests)."""


class Sink(Protocol):
    """Somebody who is told."""

    name: str

    @property
    def failures(self) -> int:
        """How often something could not be told, ever growing."""
        ...

    def publish(self, transition: Transition) -> None:
        """An incident made a step."""
        ...

    def notify(self, event: Event) -> None:
        """Something else happened."""
        ...

    def observe(self, observation: Observation) -> None:
        """This is how it is now (`Engine.observation`), whether it changed or not."""
        ...

    def close(self, timeout: float) -> None:
        """Tell what is still to be told, at most `timeout` seconds, and stop."""
        ...
