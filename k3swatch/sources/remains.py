"""The probe of a process that has ended, as far as somebody kept its descriptors: its links, so that its programs still
run, and the ring buffer they write to. Bytes in, bytes out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping

from k3swatch.errors import SourceError
from k3swatch.sources.libbpf import Ring

ABOUT = "k3swatch-probe"  # of a file in memory that says how to read the records
_ABOUT_BYTES = 1 << 16


def described(layout: tuple[int, ...], reasons: Mapping[int, str]) -> int:
    """The descriptor of that file."""
    about = os.memfd_create(ABOUT)
    text = {"layout": layout, "reasons": {str(value): name for value, name in reasons.items()}}
    os.write(about, json.dumps(text).encode())
    return about


def keepsakes(fds: Mapping[str, int]) -> list[int]:
    """What to keep of a probe whose descriptors are named `about`, `map:…`, `link:…`."""
    links = [fd for name, fd in fds.items() if name.startswith("link:")]
    return [fds["about"], fds["map:events"], *links]


class Remains:
    """What was kept of `keepsakes`, in any order. `layout` and `reasons` are the probe's."""

    def __init__(self, descriptors: Iterable[int]) -> None:
        """The descriptors are this object's from now on, also when SourceError says that they are of no use."""
        self._links = list(descriptors)
        self._others: list[int] = []
        try:
            about, events = self._pick(f"/memfd:{ABOUT} (deleted)"), self._pick("anon_inode:bpf-map")
            said = json.loads(os.pread(about, _ABOUT_BYTES, 0))
            self.layout = tuple(int(number) for number in said["layout"])
            self.reasons = {int(value): str(name) for value, name in said["reasons"].items()}
            self._ring = Ring(events)
        except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
            self._close_all()
            raise SourceError(f"kept descriptors: {type(error).__name__}: {error}") from error
        except SourceError:
            self._close_all()
            raise

    def detach(self) -> None:
        """Close the links: the programs end when nobody else has them."""
        while self._links:
            os.close(self._links.pop())

    def records(self) -> list[bytes]:
        """The records that nobody read yet, oldest first."""
        return self._ring.records()

    def close(self) -> None:
        """Give back everything."""
        self._ring.close()
        self._close_all()

    def _pick(self, kind: str) -> int:
        """The one of a kind, as /proc/self/fd shows it; all that are of no such kind are links."""
        found = next((fd for fd in self._links if os.readlink(f"/proc/self/fd/{fd}") == kind), None)
        if found is None:
            raise ValueError(f"no {kind}")
        self._links.remove(found)
        self._others.append(found)
        return found

    def _close_all(self) -> None:
        self.detach()
        while self._others:
            os.close(self._others.pop())
