"""The flow watch that sees nothing, and says so."""

from __future__ import annotations

import os
from collections.abc import Iterable

from k3swatch.live.doer import Doer, NoDoer
from k3swatch.model.flow import Flow, FlowCount
from k3swatch.model.port import Address, ProtectedPort
from k3swatch.model.words import Attach


class NoWatch:
    """See FlowWatch. Flows are unknown; `refused` says why."""

    attach = Attach.NONE
    ipvs = ""

    def __init__(self, refused: tuple[str, ...] = ()) -> None:
        self.refused = refused
        self.doer: Doer = NoDoer(refused)
        self._never = os.eventfd(0, os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """A descriptor that is never readable."""
        return self._never

    def read(self) -> list[Flow]:
        """Nothing."""
        return []

    def counts(self) -> list[FlowCount]:
        """Nothing."""
        return []

    def lost(self) -> dict[str, int]:
        """Nothing that could be counted."""
        return {}

    def protect(self, ports: Iterable[ProtectedPort], addresses: Iterable[Address]) -> None:
        """Without effect."""

    def distrust(self, inodes: Iterable[int]) -> None:
        """Without effect."""

    def alive(self) -> bool:
        """False: no connection would be seen."""
        return False

    def keepsakes(self) -> list[int]:
        """See FlowWatch."""
        return []

    def close(self) -> None:
        """See FlowWatch."""
        os.close(self._never)
