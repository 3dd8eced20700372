"""`ipv4/conf/eth0/rp_filter=1` -> Sysctls."""

from __future__ import annotations

from collections.abc import Iterable

from k3swatch.model.sysctl import Sysctls


def decode_sysctls(lines: Iterable[bytes]) -> Sysctls:
    """All of them; a value that is no number is left out."""
    found: list[tuple[str, int]] = []
    for line in lines:
        path, _, value = line.decode("utf-8", "surrogateescape").rpartition("=")
        if value.removeprefix("-").isdecimal():
            found.append((path, int(value)))
    return Sysctls(tuple(found))
