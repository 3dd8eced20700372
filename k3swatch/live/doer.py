"""Who does what on this host, where the kernel lets a probe tell: executions looked up, deeds as they happen.

`NoDoer` stands where it does not: then /proc is all there is, and what it would have woken us for is polled.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol as Interface

from k3swatch.clock import Clock
from k3swatch.decode import doer
from k3swatch.errors import DecodeError, SourceError
from k3swatch.model.port import ProtectedPort
from k3swatch.model.process import Deed, Executed
from k3swatch.model.words import Protocol
from k3swatch.sources.doer import DoerProbe

EXEC, PROC = "exec", "proc"


class Doer(Interface):
    """What tells of processes. `sees`: exec, or proc alone. `wakes`: what it tells of at once. `refused`: why not
    more."""

    sees: str
    wakes: tuple[str, ...]
    refused: tuple[str, ...]

    def fileno(self) -> int | None:
        """To wait on: readable when `read` has something. None: it never has."""
        ...

    def read(self) -> list[Deed]:
        """What was done since the last call; never blocks."""
        ...

    def executed(self, pid: int) -> Executed | None:
        """What this process executed last, also when it has ended; None when that is not known."""
        ...

    def protect(self, ports: Iterable[ProtectedPort]) -> None:
        """Tell of listeners on these ports from now on."""
        ...

    def lost(self) -> dict[str, int]:
        """What was missed, by where."""
        ...


class NoDoer:
    """See Doer: nothing."""

    sees = PROC
    wakes: tuple[str, ...] = ()

    def __init__(self, refused: tuple[str, ...] = ()) -> None:
        self.refused = refused

    def fileno(self) -> None:
        """See Doer."""

    def read(self) -> list[Deed]:
        """See Doer."""
        return []

    def executed(self, pid: int) -> Executed | None:
        """See Doer."""
        return None

    def protect(self, ports: Iterable[ProtectedPort]) -> None:
        """See Doer."""

    def lost(self) -> dict[str, int]:
        """See Doer."""
        return {}


class DoerWatch:
    """See Doer. `probe` is opened, and is closed by whoever made it. Raises DecodeError, SourceError at once."""

    sees = EXEC

    def __init__(self, probe: DoerProbe, clock: Clock) -> None:
        doer.check_layout(probe.layout)
        probe.open("deeds")
        self._probe, self._clock = probe, clock
        self.refused = probe.refused
        self.wakes = ("listeners", *(("iptables-legacy",) if probe.legacy else ()))

    def fileno(self) -> int:
        """See Doer."""
        return self._probe.fileno()

    def read(self) -> list[Deed]:
        """See Doer."""
        epoch = self._clock.now() - self._clock.monotonic()
        return [doer.decode_deed(raw, epoch) for raw in self._probe.records()]

    def executed(self, pid: int) -> Executed | None:
        """See Doer."""
        raw = self._probe.executed(pid, doer.EXEC.size)
        return None if raw is None else doer.decode_exec(raw)

    def protect(self, ports: Iterable[ProtectedPort]) -> None:
        """See Doer."""
        numbers = {port.port for port in ports if port.protocol is Protocol.TCP}
        self._probe.watch(map(doer.encode_port, numbers), len(doer.encode_port(0)))

    def lost(self) -> dict[str, int]:
        """`execs`: not remembered; `deeds`: the ring buffer was full, they were seen by polling."""
        return {"execs": self._probe.stat(doer.LOST_EXEC), "deeds": self._probe.stat(doer.LOST_DEED)}


def open_doer(probe: DoerProbe, clock: Clock) -> Doer:
    """The doer's probe, when it was loaded; never raises for want of it."""
    if not probe.attached:
        return NoDoer(probe.refused)
    try:
        return DoerWatch(probe, clock)
    except (SourceError, DecodeError) as error:
        return NoDoer((*probe.refused, str(error)))
