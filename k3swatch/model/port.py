"""Protected ports and the host facts (addresses, interfaces, listeners) they are judged against."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from functools import cached_property

from k3swatch.model.words import Family, Protocol

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LOCAL = "local"  # the word in `addresses:` that stands for every address of this host


def family_of(address: Address) -> Family:
    """The family an address belongs to."""
    return Family.IP if address.version == 4 else Family.IP6


@dataclass(frozen=True, slots=True)
class Allow:
    """One known-good diversion. Every field that is set must match for it to apply."""

    destination: Network | None = None
    pod: str | None = None  # namespace/name glob
    comment: str | None = None  # glob over the comments on the path


@dataclass(frozen=True, slots=True)
class Listener:
    """Who may own the port: executables and a systemd unit; empty means anybody."""

    exe: tuple[str, ...] = ()
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class ProtectedPort:
    """A protocol, a port number and the addresses it is protected on."""

    name: str
    port: int
    protocol: Protocol = Protocol.TCP
    addresses: tuple[str | Network, ...] = (LOCAL,)
    listener: Listener = Listener()
    allow: tuple[Allow, ...] = ()
    severity: str = "critical"

    @property
    def spec(self) -> str:
        """`tcp/6443`, as the command line writes it."""
        return f"{self.protocol}/{self.port}"


@dataclass(frozen=True, slots=True)
class Interface:
    """One network interface of this namespace (RTM_NEWLINK)."""

    index: int
    name: str
    up: bool = True
    loopback: bool = False
    group: int = 0
    kind: str = ""  # IFLA_INFO_KIND: "veth", "bridge", ...
    type: int = 1  # ARPHRD_*: 1 ethernet, 772 loopback


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """One address of this host (RTM_NEWADDR) and the interface that has it."""

    address: Address
    interface: int
    prefix_length: int
    deprecated: bool = False


@dataclass(frozen=True, slots=True)
class ListeningSocket:
    """A socket in TCP_LISTEN (or a bound UDP socket) as sock_diag reports it."""

    protocol: Protocol
    address: Address  # 0.0.0.0 or :: for any
    port: int
    v6only: bool = False
    inode: int = 0
    uid: int = 0
    interface: int = 0  # SO_BINDTODEVICE, 0 when none


@dataclass(
    frozen=True
)  # without slots, for what is worked out once: kube-ipvs0 has an address for each Service
class Host:
    """What is known of this host's network namespace at one moment."""

    addresses: tuple[LocalAddress, ...] = ()
    interfaces: tuple[Interface, ...] = ()
    sockets: tuple[ListeningSocket, ...] | None = None  # None: could not be read
    name: str = ""
    unreadable: tuple[str, ...] = field(default=())  # what could not be read, one line each

    def local(self) -> frozenset[Address]:
        """Every address of this host, loopback included."""
        return self._local

    @cached_property
    def _local(self) -> frozenset[Address]:
        return frozenset(entry.address for entry in self.addresses)

    @cached_property
    def owners(self) -> dict[bytes, int]:
        """The same addresses as bytes in network order, each with the index of the (first) interface that has it."""
        return {entry.address.packed: entry.interface for entry in reversed(self.addresses)}
