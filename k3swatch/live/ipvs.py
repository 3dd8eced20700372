"""The virtual servers that could take a protected port: read where the kernel has IPVS, nothing elsewhere."""

from __future__ import annotations

from collections.abc import Iterable

from k3swatch.decode.ipvs import decode_services
from k3swatch.errors import SourceError
from k3swatch.model.ipvs import VirtualServer
from k3swatch.sources import ipvs

MOST = 4096  # virtual servers whose real servers are read
FTP = 21  # takes every other port as well (ip_vs_service_find)


def read(ports: Iterable[int] | None = None) -> list[bytes]:
    """Messages: virtual servers, each followed by its real servers. `ports`: those of no other port are left out (a
    cluster has thousands), but for such that take any port. SourceError, DecodeError.
    """
    if not ipvs.present():
        return []
    wanted = None if ports is None else {0, FTP, *ports}
    source = ipvs.Ipvs()
    try:
        found: list[bytes] = []
        count = 0
        for raw in source.services():
            (service,) = decode_services([raw])
            if wanted is not None and not service.fwmark and service.port not in wanted:
                continue
            count += 1
            if count > MOST:
                raise SourceError(f"ipvs: more than {MOST} virtual servers that matter")
            found.append(raw)
            found += _behind(source, service)
        return found
    finally:
        source.close()


def _behind(source: ipvs.Ipvs, service: VirtualServer) -> list[bytes]:
    address = b"" if service.address is None else service.address.packed
    return source.destinations(
        service.family.nfproto, service.protocol, address, service.port, service.fwmark
    )
