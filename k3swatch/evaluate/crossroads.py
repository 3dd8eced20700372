"""Between two hooks a packet is routed: it stays here, leaves by an interface, or is lost. Outcomes are noted.

Where the routing tables could not be read, an address of this host is taken for here, and any other for elsewhere.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from k3swatch.evaluate.cells import big, known
from k3swatch.evaluate.cube import Cube, Kind, Var
from k3swatch.evaluate.header import destination_address
from k3swatch.evaluate.outcome import Fate
from k3swatch.evaluate.packet import Packet, Scene, is_local
from k3swatch.evaluate.ranges import Ranges, normal, size
from k3swatch.evaluate.routing import Way, refuses, stays, ways
from k3swatch.evaluate.states import States, add, merged
from k3swatch.evaluate.walk import Walk
from k3swatch.model.finding import PathStep
from k3swatch.model.port import LocalAddress
from k3swatch.model.routing import MAIN, Routing
from k3swatch.model.sysctl import words
from k3swatch.model.words import Family, Mechanism

LOOPBACK: Ranges = ((127 << 24, (128 << 24) - 1),)
_BOUND = "packets from 127.0.0.0/8 do not leave this host"

Leaving = list[tuple[Var, States]]  # by the interface they leave by


def routed(walk: Walk, scene: Scene, states: States) -> tuple[States, Leaving]:
    """What the client sends, by where it goes on: here, or out."""
    here: States = {}
    away: dict[int | None, States] = {}
    routing = scene.host.routing
    for packet, cubes in states.items():
        local = is_local(scene.host, packet.daddr)
        if routing is not None and stays(routing, scene.family, packet.daddr):
            add(here, packet, cubes)
            continue
        for way, some in _ways(walk, scene, packet, cubes):
            if way is None:
                if local:
                    add(here, packet, some)
                else:
                    add(away.setdefault(_connected(scene, packet.daddr), {}), packet, some)
            elif way.refused:
                _lost(walk, scene, packet, some, way)
            elif way.here:
                add(here, packet, some)
            elif local and packet.turned is None:
                _out(walk, scene, packet, some, way)
            else:
                add(away.setdefault(way.interface or None, {}), packet, some)
    return merged(here), [(_variable(scene, index), merged(part)) for index, part in away.items()]


def rerouted(walk: Walk, scene: Scene, packet: Packet, cubes: tuple[Cube, ...]) -> tuple[Cube, ...]:
    """Those of a packet of this host that find another way in the middle of the output hook, when NAT has sent them
    elsewhere (nf_nat_ipv4_local_fn, ip_route_me_harder). What comes from 127.0.0.0/8 leaves only by an interface with
    route_localnet (__mkroute_output)."""
    left: list[Cube] = []
    for way, some in _ways(walk, scene, packet, cubes):
        if way is not None and way.refused:
            _lost(walk, scene, packet, some, way)
            continue
        dialled = packet.dialled[0] if packet.dialled else packet.daddr
        bound = (
            dialled[:1] == b"\x7f" or size(scene.saddr.base) == 1
        )  # who dials another address comes from that
        name = next((each.name for each in scene.host.interfaces if way and each.index == way.interface), "")
        if scene.family is not Family.IP or not bound or scene.host.sysctls.of(name, "route_localnet") != 0:
            left += some
            continue
        step = (PathStep("sysctl", "net.ipv4.conf", name, 0, words(name, "route_localnet", 0)),)
        for cube in some:
            inside, outside = cube.split([(scene.saddr, LOOPBACK)])
            left += outside
            if inside is not None:
                walk.note(Fate.DROPPED, packet, inside, step, Mechanism.ROUTE, why=_BOUND)
    return tuple(left)


def answered(walk: Walk, scene: Scene, states: States) -> States:
    """Answers that find a way to the client."""
    routing = scene.host.routing
    if (
        routing is None
        or routing.partial
        or (size(scene.saddr.base) > 1 and not _refuses(walk, routing, scene.family))
    ):
        return states
    left: States = {}
    for packet, cubes in states.items():
        for way, some in _ways(walk, scene, packet, cubes):
            # that there is no way back to most of the world is how a network without a gateway is meant
            known = way is None or not way.missing or size(scene.saddr.base) == 1
            if way is not None and way.refused and known:
                _lost(walk, scene, packet, some, way)
            else:
                add(left, packet, some)
    return merged(left)


def _refuses(walk: Walk, routing: Routing, family: Family) -> bool:
    if family not in walk.refuses:
        walk.refuses[family] = refuses(routing, family, walk.parts)
    return walk.refuses[family]


def by_interface(scene: Scene, states: States) -> Leaving:
    """Answers from elsewhere, by the interface they come in on: the one that leads there."""
    found: dict[int | None, States] = {}
    for packet, cubes in states.items():
        found.setdefault(leads(scene, packet), {})[packet] = cubes
    return [(_variable(scene, index), part) for index, part in found.items()]


def _ways(
    walk: Walk, scene: Scene, packet: Packet, cubes: tuple[Cube, ...]
) -> Iterable[tuple[Way | None, list[Cube]]]:
    """None: the routing tables are not known, or not all of them, or where it goes is not."""
    goes = destination_address(scene, packet)
    routing = scene.host.routing
    if routing is None or routing.partial or (known(goes) is None and goes != big(scene.saddr, len(goes))):
        return [(None, list(cubes))]
    return ways(routing, scene, packet, cubes, walk.parts)


def _lost(walk: Walk, scene: Scene, packet: Packet, cubes: list[Cube], way: Way) -> None:
    words = "there is no route" if way.missing else "routing refuses it"
    if not scene.from_client:
        words = "answers have no route" if way.missing else "routing refuses the answers"
    for cube in cubes:
        walk.note(Fate.DROPPED, packet, cube, way.steps, Mechanism.ROUTE, why=words)


def _out(walk: Walk, scene: Scene, packet: Packet, cubes: list[Cube], way: Way) -> None:
    names = {interface.index: interface.name for interface in scene.host.interfaces}
    by = f" by {names.get(way.interface, f'#{way.interface}')}" if way.interface else ""
    to = f" to {ipaddress.ip_address(way.gateway)}" if len(way.gateway) in (4, 16) else ""
    why = f"routed out{by}{to}, addressed as it is, although the address is this host's"
    for cube in cubes:
        if cube.restrict(scene.mark, ((0, 0),)) is not None:  # nobody's packets come with a mark
            walk.note(Fate.ROUTED, packet, cube, way.steps, Mechanism.ROUTE, why=why)


def leads(scene: Scene, packet: Packet) -> int | None:
    """The interface that leads to the server's end, as far as it does not depend on who asks."""
    routing = scene.host.routing
    if routing is None or routing.partial:
        return _connected(scene, packet.daddr)
    found = routing.lookup(scene.family, MAIN, int.from_bytes(packet.daddr))
    return found.interface or None if found is not None else None


def _connected(scene: Scene, address: bytes) -> int | None:
    """The interface whose own network has the address; None where only a route would tell."""
    found = [
        (entry.prefix_length, entry.interface)
        for entry in scene.host.addresses
        if len(entry.address.packed) == len(address) and entry.prefix_length and _shared(entry, address)
    ]
    return max(found)[1] if found else None


def _shared(entry: LocalAddress, address: bytes) -> bool:
    shift = 8 * len(address) - entry.prefix_length
    return int(entry.address) >> shift == int.from_bytes(address) >> shift


def _variable(scene: Scene, index: int | None) -> Var:
    """The one interface, or any."""
    name = "oif" if scene.from_client else "iif of the answer"
    every = [(each.index, each.index) for each in scene.host.interfaces if not each.loopback]
    base = normal(every) or ((1, 2**31 - 1),) if index is None else ((index, index),)
    return Var(name, base, Kind.FIELD, name)
