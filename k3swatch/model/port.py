"""Protected ports and the host facts (addresses, interfaces, listeners) they are judged against."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from functools import cached_property

from k3swatch.model.ipvs import VirtualServer
from k3swatch.model.queue import PacketQueue
from k3swatch.model.routing import Routing
from k3swatch.model.sysctl import NONE_READ, Sysctls
from k3swatch.model.words import Family, Protocol

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_DEEPEST = 3  # a bridge on a VLAN on a bond
_STACKED = ("vlan", "macvlan", "ipvlan")
_ENSLAVING = (
    "bridge",
    "bond",
    "team",
    "openvswitch",
)  # IP sees nothing arrive on their ports (not so with a VRF)

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
    program: str | None = None  # glob over the hook and place of a BPF program (`xdp eth0`), or its name


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
    master: int = 0  # the bridge or bond it is a port of
    link: int = 0  # what a VLAN or macvlan is on (a veth's peer, too)
    xdp: tuple[int, ...] = ()  # ids of the XDP programs on it
    mac: bytes = b""  # its hardware address
    arp: bool = True  # packets need the hardware address of who gets them: it is asked for (not IFF_NOARP)
    calls: frozenset[Family] = frozenset()  # a bridge that has what it forwards seen by the hooks of IP


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """One address of this host (RTM_NEWADDR) and the interface that has it."""

    address: Address
    interface: int
    prefix_length: int
    deprecated: bool = False
    tentative: bool = False  # not assigned yet: somebody else may have it (RFC 4862, 5.4)


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has a listening socket open. `exe` is hostile text; None when it may not be read."""

    pid: int
    exe: str | None = None


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
    cgroup: int = 0  # id of the cgroup (version 2) it was made in; 0: the kernel does not tell
    cgroup_path: str | None = None  # `/system.slice/k3s.service`; None: not looked up, or not found
    holders: tuple[Holder, ...] = ()  # lowest pid first; empty: not looked up, or not permitted
    transparent: bool | None = None  # IP_TRANSPARENT; None: the kernel does not tell (before 5.10)


NETFILTER = "netfilter"  # how the hook of a Program begins that netfilter calls
CGROUP_SKB = "cgroup_skb"  # the same of one that sees the packets of a control group's sockets
UNTOLD = "a BPF program"  # the name of one whose id the kernel does not tell


@dataclass(frozen=True, slots=True)
class Program:
    """A BPF program attached where it can send a connection elsewhere or keep it. What it does cannot be read.

    What is no BPF has the `id` 0: an action of tc, with its kind (`mirred`, `nat`) as its name; a kernel module that
    hooks into netfilter, with the name of the module.

    `hook`: `sk_lookup`, `connect4`, `connect6`, `sendmsg4`, `sendmsg6`, `xdp`, `tc ingress`, `tcx egress`,
    `cgroup_skb ingress`, `netfilter ip`, ...
    `place`: the interface's name, the cgroup's path, netfilter's hook, or `netns`: the network namespace itself.
    """

    hook: str
    place: str
    id: int
    name: str = ""  # empty: only root may ask for it
    tag: str = ""  # hash of its instructions, 16 hex digits
    uid: int | None = None  # who loaded it
    interface: int = 0
    cgroup: int = 0  # of the listeners whose packets it sees: id of their control group


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
    programs: tuple[Program, ...] = ()  # those that could send a connection elsewhere
    routing: Routing | None = None  # None: could not be read
    unrouted: str = ""  # what of the routes and policy rules could not be read, and why
    services: tuple[VirtualServer, ...] | None = ()  # of IPVS, those that matter; None: could not be read
    bridge_calls: frozenset[Family] = frozenset()  # every bridge does so: net.bridge.bridge-nf-call-*
    queues: tuple[PacketQueue, ...] | None = (
        None  # of packets, those that programs read; None: could not be read
    )
    sysctls: Sysctls = NONE_READ

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

    @cached_property
    def loopbacks(self) -> frozenset[int]:
        """Indexes of the loopback interfaces."""
        return frozenset(interface.index for interface in self.interfaces if interface.loopback)

    @cached_property
    def enslaved(self) -> frozenset[int]:
        """Indexes of interfaces on which IP sees nothing arrive: ports of a bridge or a bond."""
        masters = {each.index for each in self.interfaces if each.kind in _ENSLAVING}
        return frozenset(each.index for each in self.interfaces if each.master in masters)

    def showing(self, family: Family) -> tuple[int, ...]:
        """Indexes of the bridges that have what they take in seen by the hooks of IP (br_netfilter)."""
        every = family in self.bridge_calls
        return tuple(
            each.index
            for each in self.interfaces
            if each.kind == "bridge" and (every or family in each.calls)
        )

    def ports(self, master: int) -> tuple[int, ...]:
        """Indexes of the ports of a bridge or bond."""
        return tuple(each.index for each in self.interfaces if each.master == master)

    def above(self, index: int) -> dict[int, tuple[tuple[int, int], ...]]:
        """The interfaces on which IP sees what passes a device, by index: itself, the bridge it is a port of, VLANs on
        that; and through which port of which bridge or bond (port, master) it gets there.
        """
        found: dict[int, tuple[tuple[int, int], ...]] = {index: ()}
        for _ in range(_DEEPEST):
            for each in self.interfaces:
                if each.index in found and each.index in self.enslaved:
                    found.setdefault(each.master, (*found[each.index], (each.index, each.master)))
                if each.kind in _STACKED and each.link in found:
                    found.setdefault(each.index, found[each.link])
        return {each: ports for each, ports in found.items() if each not in self.enslaved}

    @cached_property
    def heights(self) -> dict[int, int]:
        """How many devices each interface rests on, one upon the other."""
        heights = {each.index: 0 for each in self.interfaces}
        for _ in range(_DEEPEST):
            for each in self.interfaces:
                if each.index in self.enslaved:
                    heights[each.master] = max(heights[each.master], heights[each.index] + 1)
                if each.kind in _STACKED and each.link in heights and each.link != each.index:
                    heights[each.index] = max(heights[each.index], heights[each.link] + 1)
        return heights

    @cached_property
    def carriers(self) -> dict[int, frozenset[Address]]:
        """The interfaces that packets for an address of this host come in on, with those addresses: the one that has
        it, and what that rests on (ports of a bond or bridge, a VLAN's device; a bridge's veths are pods' own)."""
        found: dict[int, set[Address]] = {}
        for entry in self.addresses:
            found.setdefault(entry.interface, set()).add(entry.address)
        for _ in range(_DEEPEST):
            for lower in self.interfaces:
                if lower.master in found and lower.kind != "veth":
                    found.setdefault(lower.index, set()).update(found[lower.master])
            for upper in self.interfaces:
                if upper.kind in _STACKED and upper.link and upper.index in found:
                    found.setdefault(upper.link, set()).update(found[upper.index])
        return {index: frozenset(addresses) for index, addresses in found.items()}
