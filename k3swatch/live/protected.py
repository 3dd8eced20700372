"""Which addresses of this host a port is protected on, one by one, as the kernel is told."""

from __future__ import annotations

from collections.abc import Iterable

from k3swatch.model.port import LOCAL, Address, ProtectedPort
from k3swatch.model.words import Protocol

Endpoint = tuple[Protocol, int, Address]


def endpoints(ports: Iterable[ProtectedPort], addresses: frozenset[Address]) -> frozenset[Endpoint]:
    """Every protected (protocol, port, address); `addresses` are all of this host."""
    return frozenset(
        (port.protocol, port.port, address)
        for port in ports
        for address in addresses
        if any(
            entry == LOCAL
            or (not isinstance(entry, str) and entry.version == address.version and address in entry)
            for entry in port.addresses
        )
    )
