"""The host's side of the question: its addresses, its interfaces, and who listens. What cannot be read is
said.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple, TypeVar

from k3swatch.clock import Clock
from k3swatch.decode.host import decode_address, decode_link, decode_socket, listening_port
from k3swatch.decode.ipvs import decode_services
from k3swatch.decode.nfqueue import decode_queues
from k3swatch.decode.routing import decode_policy, decode_route
from k3swatch.decode.sysctl import decode_sysctls
from k3swatch.errors import DecodeError, Interrupted, SourceError
from k3swatch.live import ipvs
from k3swatch.live import nfqueue as live_queues
from k3swatch.live.holders import Holders
from k3swatch.live.nfqueue import Queues
from k3swatch.live.programs import Programs
from k3swatch.model.ipvs import VirtualServer
from k3swatch.model.port import Host, Interface, ListeningSocket, LocalAddress, ProtectedPort
from k3swatch.model.queue import PacketQueue
from k3swatch.model.routing import REFUSING, Routing
from k3swatch.model.sysctl import FORCED6, FORWARDING6, PER_INTERFACE
from k3swatch.model.words import Family, Protocol
from k3swatch.sources import nfqueue, rtnetlink, sockdiag, sysctls
from k3swatch.sources.bridge import bridge_calls

T = TypeVar("T")

MOST = 16384  # addresses, interfaces or sockets; more is said in `unreadable`
MOST_INTERFACES = 64  # whose sysctls are read
_TRIES = 5  # of a dump that is interrupted


class RawHost(NamedTuple):
    """What was read, as messages; None where it could not be, with one line each in `unreadable`."""

    name: str
    addresses: list[bytes] | None
    links: list[bytes] | None
    tcp: list[bytes] | None
    udp: list[bytes] | None
    unreadable: tuple[str, ...]
    routes: list[bytes] | None = None
    rules: list[bytes] | None = None  # of policy routing
    ipvs: list[bytes] | None = []  # noqa: RUF012  never changed; virtual servers, each followed by its real ones
    bridge: dict[str, str] = {}  # noqa: RUF012  never changed; of sources.bridge
    queues: list[bytes] | None = None  # of packets, as one table
    sysctls: list[bytes] | None = None
    partial: bool = False  # of the routes: only those of table `local`, and those that refuse


def read_raw_host(ports: Iterable[int] | None = None) -> RawHost:
    """Read this network namespace; of IPVS, what matters for `ports` (None: all). Never raises SourceError: what fails
    is None and named.
    """
    unreadable: list[str] = []

    def read(source: Callable[[], list[bytes]], what: str) -> list[bytes] | None:
        for attempt in range(_TRIES):
            try:
                found = source()
            except Interrupted as error:
                if attempt == _TRIES - 1:
                    unreadable.append(f"{what}: {error}")
            except (SourceError, DecodeError) as error:
                unreadable.append(f"{what}: {error}")
                return None
            else:
                if len(found) > MOST:
                    unreadable.append(f"{what}: {len(found)}, only {MOST} are looked at")
                return found[:MOST]
        return None

    links = read(rtnetlink.links, "interfaces")
    tcp = read(lambda: sockdiag.sockets(Protocol.TCP.number), "TCP listeners")
    udp = read(lambda: sockdiag.sockets(Protocol.UDP.number), "UDP sockets")
    rules = read(rtnetlink.policy_rules, "policy rules")
    addresses = read(rtnetlink.addresses, "addresses")
    for _ in range(
        _TRIES
    ):  # of one moment: an address whose own route is missing looks like one that is routed off
        before, routes = addresses, read(rtnetlink.routes, "routes")
        addresses = read(rtnetlink.addresses, "addresses")
        if routes is None or _assigned(before) == _assigned(addresses):
            break
    partial = routes is None or len(routes) == MOST  # too many: read what can be told without the others
    if partial:
        fewer = read(lambda: [*rtnetlink.local_routes(), *rtnetlink.refusing_routes()], "local routes")
        routes = None if fewer is None or len(fewer) == MOST else fewer
    virtual = read(lambda: ipvs.read(ports), "IPVS")
    try:
        calls = bridge_calls()
    except SourceError as error:
        unreadable.append(f"bridges: {error}")
        calls = {family.value: "1" for family in Family}  # as it is when nobody sets it
    queues = read(lambda: [nfqueue.queues()], "packet queues")
    settings = read_sysctls(_named(links), _assigned(addresses))
    # last: by now it holds what any of the above had to say
    said = tuple(unreadable)
    name = socket.gethostname()
    return RawHost(
        name, addresses, links, tcp, udp, said, routes, rules, virtual, calls, queues, settings, partial
    )


def read_sysctls(interfaces: Iterable[Interface], addresses: Iterable[LocalAddress]) -> list[bytes]:
    """Those of the interfaces that have an address, and of all."""
    owners = {entry.interface for entry in addresses}
    names = [each.name for each in interfaces if each.index in owners and not each.loopback]
    names = ["all", *names[:MOST_INTERFACES]]
    paths = [f"ipv4/conf/{name}/{which}" for name in names for which in PER_INTERFACE]
    return sysctls.read([*paths, FORWARDING6, *(f"ipv6/conf/{name}/{FORCED6}" for name in names)])


def _named(messages: list[bytes] | None) -> list[Interface]:
    found: list[Interface] = []
    for message in messages or ():
        with suppress(DecodeError):  # named by decode_host
            found.append(decode_link(message))
    return found


def _assigned(messages: list[bytes] | None) -> set[LocalAddress]:
    """What addresses there are, without what changes by itself (how long they are valid)."""
    found: set[LocalAddress] = set()
    for message in messages or ():
        with suppress(DecodeError):  # named by decode_host
            found.add(decode_address(message))
    return found


def decode_host(raw: RawHost) -> Host:
    """The same as values. A message that does not decode is left out and named.

    Left out as well: addresses that are tentative. Nobody can be reached at them, and there is no route to them yet
    (addrconf_dad_completed); when they are assigned, the kernel says so.
    """
    unreadable = list(raw.unreadable)

    def decode(what: str, messages: Iterable[bytes] | None, decoder: Callable[[bytes], T]) -> list[T]:
        found: list[T] = []
        for message in messages or ():
            try:
                found.append(decoder(message))
            except DecodeError as error:
                unreadable.append(f"{what}: {error}")
        return found

    found = decode("addresses", raw.addresses, decode_address)
    addresses = tuple(address for address in found if not address.tentative)
    interfaces = tuple(decode("interfaces", raw.links, decode_link))
    sockets: list[ListeningSocket] | None = None
    if raw.tcp is not None and raw.udp is not None:
        sockets = decode("TCP listeners", raw.tcp, lambda each: decode_socket(each, Protocol.TCP))
        sockets += decode("UDP sockets", raw.udp, lambda each: decode_socket(each, Protocol.UDP))
    routing = None  # not looked at where not all of it could be read
    unrouted = ""
    if raw.routes is not None and raw.rules is not None and len(raw.routes) < MOST:
        before = len(unreadable)
        rules = decode("policy rules", raw.rules, decode_policy)
        routes = decode("routes", raw.routes, decode_route)
        routing = Routing(tuple(filter(None, rules)), tuple(filter(None, routes)), raw.partial)
        unrouted = next(iter(unreadable[before:]), "")
    else:
        unrouted = next((line for line in unreadable if line.startswith(("routes: ", "policy rules: "))), "")
    services: tuple[VirtualServer, ...] | None = None
    if raw.ipvs is not None:
        try:
            services = decode_services(raw.ipvs)
        except DecodeError as error:
            unreadable.append(f"IPVS: {error}")
    queues: tuple[PacketQueue, ...] | None = None
    if raw.queues is not None:
        try:
            queues = decode_queues(b"".join(raw.queues))
        except DecodeError as error:
            unreadable.append(str(error))
    return Host(
        addresses,
        interfaces,
        None if sockets is None else tuple(sockets),
        name=raw.name,
        unreadable=tuple(unreadable),
        routing=routing,
        unrouted=unrouted,
        services=services,
        bridge_calls=frozenset(each for each in Family if raw.bridge.get(each.value, "0") != "0"),
        queues=queues,
        sysctls=decode_sysctls(raw.sysctls or ()),
    )


def read_host(ports: Iterable[int] | None = None) -> Host:
    """This host now, in the network namespace of the calling thread; bounded, and never an exception. `ports`: see
    read_raw_host.
    """
    return decode_host(read_raw_host(ports))


class HostReader:
    """`read_host`, and what it takes to judge who has a port without any rule: whose the listening sockets are, and
    the BPF programs attached where they could send a connection elsewhere.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._holders, self._programs, self._queues = Holders(), Programs(), Queues()
        self._last: Host | None = None

    def read(self, ports: Sequence[ProtectedPort]) -> Host:
        """This host now, for who protects `ports`; bounded, and never an exception."""
        host, now = read_host({port.port for port in ports}), self._clock.monotonic()
        sockets = host.sockets and self._holders.tell(host.sockets, ports, now)
        programs, unreadable = self._programs.read(host, now, ports)
        self._last = replace(
            host,
            sockets=sockets,
            programs=programs,
            unreadable=(*host.unreadable, *unreadable),
            queues=self._queues.tell(host.queues, now),
        )
        return self._last

    def moved(self, ports: Sequence[ProtectedPort]) -> bool:
        """Whether somebody listens or reads a queue, a virtual server or a program is there, a route leads nowhere, or
        a sysctl is set, otherwise than when it was last read: nothing tells us of these. Costs a fraction of `read`;
        what cannot be read is left to the next of those, and keeps nothing else from being looked at.
        """
        last = self._last
        if last is None or last.sockets is None:
            return False
        sockets = last.sockets
        looks: tuple[Callable[[], bool], ...] = (
            lambda: _listeners(ports) != _essence(sockets, ports),
            lambda: decode_services(ipvs.read({port.port for port in ports})) != last.services,
            lambda: self._programs.moved(last),
            lambda: _rerouted(last),
            lambda: _reset(last),
        )
        return any(map(_seen, looks))


def _seen(look: Callable[[], bool]) -> bool:
    """Whether something was seen, as far as it can be read."""
    try:
        return look()
    except (SourceError, DecodeError, OSError):
        return False


def _rerouted(last: Host) -> bool:
    """Whether other routes lead nowhere than did."""
    if last.routing is None:
        return False
    decoded = {decode_route(raw) for raw in rtnetlink.refusing_routes()}
    now = {route for route in decoded if route is not None and route.type in REFUSING}
    return now != {route for route in last.routing.routes if route.type in REFUSING}


def _reset(last: Host) -> bool:
    """Whether other queues are read, or sysctls set otherwise, than were."""
    readers = {(each.number, each.portid, each.mode) for each in live_queues.read()}
    settings = decode_sysctls(read_sysctls(last.interfaces, last.addresses))
    before = {(each.number, each.portid, each.mode) for each in last.queues or ()}
    return settings != last.sysctls or (last.queues is not None and readers != before)


def _listeners(ports: Sequence[ProtectedPort]) -> set[object]:
    """Who listens on `ports` now; messages about other ports are not decoded."""
    found: set[object] = set()
    for protocol in {port.protocol for port in ports}:
        numbers = {port.port for port in ports if port.protocol is protocol}
        messages = (raw for raw in sockdiag.sockets(protocol.number) if listening_port(raw) in numbers)
        found |= _essence([decode_socket(raw, protocol) for raw in messages], ports)
    return found


def _essence(sockets: Iterable[ListeningSocket], ports: Sequence[ProtectedPort]) -> set[object]:
    """What of the sockets of `ports` only changes when they are others."""
    wanted = {(port.protocol, port.port) for port in ports}
    return {
        (socket.protocol, socket.port, socket.address, socket.inode, socket.interface)
        for socket in sockets
        if (socket.protocol, socket.port) in wanted
    }
