"""Which ports the daemon protects: the configuration's, and those of the K3s that it finds, kept current.

K3s is looked for at the start, on SIGHUP, when its process is another one, and every AGAIN seconds while none runs
(only a unit announces itself). One that has gone takes no port with it: it is most likely being restarted, and what
was protected stays so until somebody says otherwise.
"""

from __future__ import annotations

from dataclasses import replace

from k3swatch.clock import Clock
from k3swatch.config import Config
from k3swatch.k3s.find import Found
from k3swatch.k3s.resolve import Resolved, moved, resolve
from k3swatch.model.port import ProtectedPort

AGAIN = 10.0  # seconds between two looks through all processes


class Protected:
    """The ports in force."""

    def __init__(self, config: Config, root: str, clock: Clock) -> None:
        self._root, self._clock = root, clock
        self._config = config
        self._known = Resolved(config.ports)
        self._again = 0.0
        self.load(config)

    @property
    def ports(self) -> tuple[ProtectedPort, ...]:
        """All of them."""
        return self._known.ports

    @property
    def k3s(self) -> Found | None:
        """The K3s they are of."""
        return self._known.found

    def load(self, config: Config) -> None:
        """Another configuration: everything is looked for anew."""
        found = resolve(config, self._root, self._clock)
        self._config = config
        self._known = found if found is not None else Resolved(config.ports)

    def moved(self) -> bool:
        """Whether other ports are in force than at the last call: K3s was started, or started otherwise."""
        found, now = self._known.found, self._clock.monotonic()
        overdue = self._config.k3s.auto and now >= self._again and (found is None or found.pid is None)
        if not overdue and not moved(self._config, self._known, self._root, self._clock):
            return False
        self._again = now + AGAIN
        seen, before = resolve(self._config, self._root, self._clock), self._known
        if seen is None:
            return False  # could not look in time: the next second will tell
        if before.found is not None and before.found.running and not (seen.found and seen.found.running):
            gone = replace(before.found, pid=None, running=False)
            self._known = Resolved(before.ports, gone, seen.signature)
            return False
        if seen.found is None and before.found is not None:
            return False  # it has gone before
        self._known = seen
        return seen.ports != before.ports
