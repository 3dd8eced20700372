"""IPVS: virtual servers of this host's kernel, and the real servers behind them, as values."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import Enum

from k3swatch.model.words import Family, Protocol

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

IPVS = "ipvs"  # in the place of a table's family, where rules have theirs
PERSISTENT = 0x0001  # IP_VS_SVC_F_PERSISTENT


class Method(Enum):
    """How a real server is reached: IP_VS_CONN_F_FWD_MASK."""

    MASQ = 0  # the destination is translated
    LOCALNODE = 1
    TUNNEL = 2
    ROUTE = 3  # "direct routing": the packet as it is, to the real server's MAC address
    BYPASS = 4


@dataclass(frozen=True, slots=True)
class RealServer:
    """One destination. `port` 0: the one that was dialled. A `weight` of 0 takes no new connections."""

    address: Address
    port: int
    method: Method
    weight: int

    def __str__(self) -> str:
        """As a person writes it: `10.42.0.244:6443 masq`."""
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        weight = "" if self.weight == 1 else f" weight {self.weight}"
        return f"{host}:{self.port} {self.method.name.lower()}{weight}"


@dataclass(frozen=True, slots=True)
class VirtualServer:
    """What IPVS calls a service: by protocol, address and port, or, with a `fwmark`, by the packet's mark."""

    family: Family
    scheduler: str  # hostile text
    protocol: int = 0
    address: Address | None = None
    port: int = 0
    fwmark: int = 0
    flags: int = 0
    servers: tuple[RealServer, ...] = ()

    @property
    def kind(self) -> str:
        """`tcp`, `udp`, a number; `fwmark`."""
        names = {protocol.number: str(protocol) for protocol in Protocol}
        return "fwmark" if self.fwmark else names.get(self.protocol, str(self.protocol))

    @property
    def name(self) -> str:
        """`192.168.1.233:6443`, `[fd00::1]:6443`, a mark: what `ipvsadm -D` wants."""
        if self.fwmark or self.address is None:
            return f"{self.fwmark:#x}"
        bracketed = isinstance(self.address, ipaddress.IPv6Address)
        return f"[{self.address}]:{self.port}" if bracketed else f"{self.address}:{self.port}"

    def __str__(self) -> str:
        """The scheduler, and who may be chosen: `rr: 10.42.0.244:6443 masq`."""
        return f"{self.scheduler}: {', '.join(map(str, self.servers)) or 'nobody'}"
