"""The doer's probe as the daemon holds it: the map of executions, the ring buffer of deeds. Bytes in and out."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from k3swatch.errors import SourceError
from k3swatch.sources import libbpf
from k3swatch.sources.libbpf import Ring


class DoerProbe:
    """Beside the connection probe, where it could be loaded: `attached` says so, `refused` why not, or not all of it.

    `legacy` is how iptables-legacy is watched (fentry, kprobe), empty when it is not.
    """

    def __init__(self, message: Mapping[str, Any], fds: dict[str, int]) -> None:
        """`message` and `fds` as the loader sent them; the descriptors are ours from here on."""
        self._fds = fds
        self._ring: Ring | None = None
        self.legacy = str(message["legacy"])
        self.refused = tuple(str(line) for line in message["refused"])
        self.layout = tuple(int(number) for number in message["layout"])

    @property
    def attached(self) -> bool:
        """Whether there is anything to read."""
        return "map:deeds" in self._fds

    def open(self) -> None:
        """Start reading deeds. SourceError: it cannot be done."""
        self._ring = Ring(self._map("deeds"))

    def fileno(self) -> int:
        """Readable when deeds wait."""
        return self._reader.fileno()

    def records(self) -> list[bytes]:
        """The deeds that wait, oldest first; never blocks."""
        return self._reader.records()

    def executed(self, pid: int, size: int) -> bytes | None:
        """What a process executed last, `size` bytes; None when that is not known (any more)."""
        return libbpf.lookup(self._map("execs"), pid.to_bytes(4, sys.byteorder), size)

    def watch(self, ports: Iterable[bytes], size: int) -> None:
        """Tell of listeners on exactly these TCP ports."""
        libbpf.replace_keys(self._map("ports"), ports, size)

    def stat(self, index: int) -> int:
        """One counter of `doer_stats`, all CPUs added up."""
        return libbpf.per_cpu(self._map("doer_stats"), index)

    def close(self) -> None:
        """Detach and free everything."""
        if self._ring is not None:
            self._ring.close()
            self._ring = None
        while self._fds:
            os.close(self._fds.popitem()[1])

    @property
    def _reader(self) -> Ring:
        if self._ring is None:
            raise SourceError("the doer's probe is closed")
        return self._ring

    def _map(self, name: str) -> int:
        fd = self._fds.get(f"map:{name}")
        if fd is None:
            raise SourceError(f"probe loader sent no map {name}")
        return fd
