"""What routing asks of a packet from outside beyond where it goes: may it come in here, and may it be sent on?

Follows ip_route_input_slow (martian destinations, forwarding), __fib_validate_source (rp_filter) and ip6_forward. Each
is a sysctl of the interface, and is named as the cause. `accept_local` and `log_martians` are left out: nobody outside
has an address of ours and gets an answer, and a log drops nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from k3swatch.evaluate.cube import Cube, Var
from k3swatch.evaluate.leads import by_interface, clients
from k3swatch.evaluate.outcome import Fate
from k3swatch.evaluate.packet import NO_MARK, Packet, Scene, Turn
from k3swatch.evaluate.ranges import EMPTY, Ranges, union
from k3swatch.evaluate.routing import ways
from k3swatch.evaluate.states import States, add, merged
from k3swatch.evaluate.walk import Walk
from k3swatch.model.finding import PathStep
from k3swatch.model.port import Interface
from k3swatch.model.sysctl import FORCED6, FORWARDING6, STRICT, words
from k3swatch.model.words import Family, Mechanism

SYSCTL = "sysctl"  # the family of a step that is one
_FORWARDING = "packets from outside are not forwarded"
_LOOPBACK = "sent to loopback from outside, which the interface refuses"
_REVERSE = "strict reverse path filter: the way back to the client is by another interface"


def admitted(walk: Walk, scene: Scene, states: States) -> States:
    """The packets from outside that are let in, by whatever interface they come."""
    if scene.iif is None:
        return states
    left: States = {}
    for packet, cubes in states.items():
        if packet.daddr[:1] == b"\x7f" and scene.family is Family.IP:
            cubes = _local(walk, scene, packet, cubes)
        elif packet.sent == () and not packet.patch:
            cubes = _reversed(walk, scene, packet, cubes)
        if cubes:
            add(left, packet, cubes)
    return left


def forwarded(walk: Walk, scene: Scene, states: States) -> States:
    """The packets from outside that are sent on, of those that leave again."""
    closed = list(_closed(scene))
    if scene.iif is None or not closed:
        return states
    left: States = {}
    for packet, cubes in states.items():
        for interface, step in closed:
            inside, cubes = _by(scene.iif, interface.index, cubes)
            for cube in inside:
                walk.note(Fate.DROPPED, packet, cube, (step,), Mechanism.ROUTE, why=_FORWARDING)
        if cubes:
            add(left, packet, cubes)
    return merged(left)


def _closed(scene: Scene) -> Iterator[tuple[Interface, PathStep]]:
    """The interfaces whose packets are not sent on, and the sysctl that says so."""
    sysctls = scene.host.sysctls
    for interface in scene.host.interfaces:
        if scene.family is Family.IP:
            if sysctls.of(interface.name, "forwarding") == 0:
                yield interface, _step(interface.name, "forwarding", 0)
        elif sysctls.get(FORWARDING6) == 0:
            own = sysctls.get(f"ipv6/conf/{interface.name}/{FORCED6}")
            if own == 0 or (own is None and sysctls.get(f"ipv6/conf/all/{FORCED6}") is None):
                yield (
                    interface,
                    PathStep(SYSCTL, "net.ipv6.conf", "all", 0, "net.ipv6.conf.all.forwarding = 0"),
                )


def _local(walk: Walk, scene: Scene, packet: Packet, cubes: tuple[Cube, ...]) -> tuple[Cube, ...]:
    """Packets to 127.0.0.0/8, which only a rule can have made of one from outside: IN_DEV_NET_ROUTE_LOCALNET."""
    assert scene.iif is not None
    for interface in scene.host.interfaces:
        if scene.host.sysctls.of(interface.name, "route_localnet") != 0:
            continue
        inside, cubes = _by(scene.iif, interface.index, cubes)
        step = _step(interface.name, "route_localnet", 0)
        for cube in inside:
            walk.note(Fate.DROPPED, packet, cube, (step,), Mechanism.ROUTE, why=_LOOPBACK)
    return cubes


def _reversed(walk: Walk, scene: Scene, packet: Packet, cubes: tuple[Cube, ...]) -> tuple[Cube, ...]:
    """Those that a strict rp_filter lets in, of the clients whose packets do come in where the dialled address is: they
    are of its network, or reached by that interface according to a table in use. Nobody sends others' packets there.
    """
    routing, host = scene.host.routing, scene.host
    dialled = packet.dialled[0] if packet.dialled else packet.daddr
    index = host.owners.get(dialled)
    interface = next((each for each in host.interfaces if each.index == index), None)
    if scene.family is not Family.IP or interface is None or interface.loopback:
        return cubes
    if routing is None or routing.partial:
        return cubes
    if host.sysctls.of(interface.name, "rp_filter") != STRICT or scene.iif is None:
        return cubes
    inside, rest = _by(scene.iif, interface.index, cubes)
    near = union(clients(routing, scene.family, interface.index), _neighbours(scene, dialled))
    if not inside or not near:
        return cubes
    pods = {each.index for each in host.interfaces if each.kind == "veth"}  # nobody's way in but a pod's
    marked = host.sysctls.of(interface.name, "src_valid_mark") != 0
    answer = packet if marked else replace(packet, mark=NO_MARK)
    back = scene.but(turn=Turn.ANSWER, iif=None, uid=None)
    step = _step(interface.name, "rp_filter", STRICT)
    for way, some in ways(routing, back, answer, inside, walk.leads, by_interface):
        kept = some
        if way.interface not in (0, interface.index, *pods):
            kept = []
            for cube in some:
                part, outside = cube.split([(scene.saddr, near)])
                kept += outside
                if part is not None:
                    walk.note(Fate.DROPPED, packet, part, (*way.steps, step), Mechanism.ROUTE, why=_REVERSE)
        rest = (*rest, *kept)
    return rest


def _neighbours(scene: Scene, address: bytes) -> Ranges:
    """The network of an address of ours."""
    for entry in scene.host.addresses:
        if entry.address.packed == address and entry.prefix_length:
            shift = len(address) * 8 - entry.prefix_length
            low = int(entry.address) >> shift << shift
            return ((low, low | (1 << shift) - 1),)
    return EMPTY


def _by(iif: Var, index: int, cubes: Iterable[Cube]) -> tuple[list[Cube], tuple[Cube, ...]]:
    """Those that come in by one interface, and the others."""
    found: list[Cube] = []
    rest: list[Cube] = []
    for cube in cubes:
        inside, outside = cube.split([(iif, ((index, index),))])
        found += [inside] if inside is not None else []
        rest += outside
    return found, tuple(rest)


def _step(interface: str, name: str, value: int) -> PathStep:
    return PathStep(SYSCTL, "net.ipv4.conf", interface, 0, words(interface, name, value))
