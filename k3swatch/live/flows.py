"""Real connections to the protected ports: what the probe, or else conntrack, sees of them.

`open_flow_watch` gives the best there is: the probe (fentry, kprobe, raw tracepoints), conntrack events, nothing.
Which it is stands in `attach`, and why nothing better in `refused`; what a watch cannot see, its class says.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from k3swatch.clock import Clock, SystemClock
from k3swatch.errors import DecodeError, K3swatchError, SourceError
from k3swatch.live.doer import Doer
from k3swatch.live.flow_conntrack import ConntrackWatch
from k3swatch.live.flow_none import NoWatch
from k3swatch.live.flow_probe import ProbeWatch
from k3swatch.model.flow import Flow, FlowCount
from k3swatch.model.port import Address, ProtectedPort
from k3swatch.model.words import Attach


class FlowWatch(Protocol):
    """What a flow watch offers. Not for use by two threads at once."""

    attach: Attach
    ipvs: str  # how what IPVS decides is seen (fentry, kprobe); empty: only by the packets it translates
    refused: tuple[str, ...]  # one line each: better attachments, and why they are not in use
    doer: Doer  # who does what; comes and goes with it

    def fileno(self) -> int:
        """To wait on: readable when `read` has something."""
        ...

    def read(self) -> list[Flow]:
        """Connections that were told since the last call; never blocks. Not every one: see `counts`."""
        ...

    def counts(self) -> list[FlowCount]:
        """How many connections there were, of each kind; exact, except for what `lost` says."""
        ...

    def lost(self) -> dict[str, int]:
        """What was missed, by where; all zero when nothing was."""
        ...

    def protect(self, ports: Iterable[ProtectedPort], addresses: Iterable[Address]) -> None:
        """Watch these ports on those of this host's `addresses` they are protected on, from now on.

        To be called again when either changes. SourceError when it cannot be done: what was watched still is.
        """
        ...

    def distrust(self, inodes: Iterable[int]) -> None:
        """Whom exactly these listening sockets accept counts as diverted from now on: they are not the owner's.

        SourceError when it cannot be done.
        """
        ...

    def alive(self) -> bool:
        """Whether connections would be seen, as far as can be told without waiting for one."""
        ...

    def keepsakes(self) -> list[int]:
        """Descriptors through which another process can read what comes after this one ends; they stay ours.

        See flow_remains.py. Empty where that cannot be had.
        """
        ...

    def close(self) -> None:
        """Detach."""
        ...


def open_flow_watch(prefer: Attach | None = None, clock: Clock | None = None) -> FlowWatch:
    """The best flow watch this host allows; never raises for want of one.

    With `prefer` no better attachment than it is tried, and of the probe's only that one.
    """
    clock = clock or SystemClock()
    refused: list[str] = []
    if prefer not in (Attach.CONNTRACK, Attach.NONE):
        try:
            return ProbeWatch(prefer, clock)
        except (SourceError, DecodeError) as error:
            refused.append(_reason("probe" if prefer is None else prefer.value, error))
    if prefer is not Attach.NONE:
        try:
            return ConntrackWatch(clock, tuple(refused))
        except SourceError as error:
            refused.append(_reason("conntrack", error))
    return NoWatch(tuple(refused))


def _reason(what: str, error: K3swatchError) -> str:
    return f"{what}: {error}" + (f" ({error.hint})" if error.hint else "")
