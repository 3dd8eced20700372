"""What the daemon holds of one BPF object that the loader attached: descriptors by name, the ring buffer's reader."""

from __future__ import annotations

import os

from k3swatch.errors import SourceError
from k3swatch.sources import libbpf
from k3swatch.sources.libbpf import Ring


class Held:
    """`map:…`, `prog:…`, `link:…`: it stays attached for as long as these are open."""

    def __init__(self, fds: dict[str, int]) -> None:
        """The descriptors are this object's from now on."""
        self._fds = fds
        self._ring: Ring | None = None

    def open(self, name: str) -> None:
        """Start reading the ring buffer in the map `name`. SourceError: it cannot be done."""
        self._ring = Ring(self.map(name))

    def fileno(self) -> int:
        """Readable when records wait."""
        return self._reader.fileno()

    def records(self) -> list[bytes]:
        """The records that wait, oldest first; never blocks."""
        return self._reader.records()

    def map(self, name: str) -> int:
        """The descriptor of a map; SourceError when the loader sent none."""
        fd = self._fds.get(f"map:{name}")
        if fd is None:
            raise SourceError(f"probe loader sent no map {name}")
        return fd

    def counter(self, name: str, index: int) -> int:
        """One counter of the map `name`, all CPUs added up."""
        return libbpf.per_cpu(self.map(name), index)

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
            raise SourceError("the probe is closed")
        return self._ring
