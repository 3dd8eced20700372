"""The values of sysctls of this network namespace that decide what becomes of a packet (sysctl(2), ip-sysctl.rst)."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

_NET = "/proc/sys/net"  # of the calling thread's network namespace


def read(paths: Iterable[str]) -> list[bytes]:
    """`ipv4/conf/eth0/rp_filter=1` for each of the paths. What cannot be read is left out: without IPv6, in an older
    kernel, or where an interface has just gone, it is not there."""
    found: list[bytes] = []
    for path in paths:
        with suppress(OSError), open(f"{_NET}/{path}", "rb", buffering=0) as file:
            found.append(path.encode("utf-8", "surrogateescape") + b"=" + file.read(64).strip())
    return found
