"""The doer's probe as the daemon holds it: the map of executions, the ring buffer of deeds. Bytes in and out."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from k3swatch.sources import libbpf
from k3swatch.sources.held import Held


class DoerProbe(Held):
    """Beside the connection probe, where it could be loaded: `attached` says so, `refused` why not, or not all of it.

    `legacy` is how iptables-legacy is watched (fentry, kprobe), empty when it is not.
    """

    def __init__(self, message: Mapping[str, Any], fds: dict[str, int]) -> None:
        """`message` and `fds` as the loader sent them."""
        super().__init__(fds)
        self.legacy = str(message["legacy"])
        self.refused = tuple(str(line) for line in message["refused"])
        self.layout = tuple(int(number) for number in message["layout"])

    @property
    def attached(self) -> bool:
        """Whether there is anything to read."""
        return "map:deeds" in self._fds

    def executed(self, pid: int, size: int) -> bytes | None:
        """What a process executed last, `size` bytes; None when that is not known (any more)."""
        return libbpf.lookup(self.map("execs"), pid.to_bytes(4, sys.byteorder), size)

    def watch(self, ports: Iterable[bytes], size: int) -> None:
        """Tell of listeners on exactly these TCP ports."""
        libbpf.replace_keys(self.map("ports"), ports, size)

    def stat(self, index: int) -> int:
        """One counter of `doer_stats`, all CPUs added up."""
        return self.counter("doer_stats", index)
