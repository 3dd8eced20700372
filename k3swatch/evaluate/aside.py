"""Connections that NAT has sent to the client's own network: whose answers do not come by this host, or who gets none.

They are diverted, and that is all: what chains further on would say is not asked, or not about them. Looked at where
one sender is asked for; among all senders it would be a finding more for people of whom nobody gets an answer either.
"""

from __future__ import annotations

from k3swatch.evaluate.cube import Box, Cube, Var
from k3swatch.evaluate.packet import Packet, Scene
from k3swatch.evaluate.ranges import Ranges, size
from k3swatch.evaluate.states import States, add
from k3swatch.model.port import Interface
from k3swatch.model.routing import MAIN
from k3swatch.model.words import Vantage


def bridged(scene: Scene, way: Var, states: States, silent: States) -> States:
    """Without those that would have to leave a bridge by the port they came in on (should_deliver): a pod sent to
    itself. With br_netfilter they are bridged, and forward chains are not asked. They become `silent`."""
    interface = _interface(scene, way)
    if interface is None or interface.kind != "bridge" or scene.iif is None or size(scene.saddr.base) > 1:
        return states
    left: States = {}
    for packet, cubes in states.items():
        own = int.from_bytes(packet.daddr)
        _part(cubes, [(scene.iif, way.base), (scene.saddr, ((own, own),))], packet, left, silent)
    return left


def directly(scene: Scene, way: Var, states: States, silent: States) -> States:
    """Without those whose server is the client's neighbour, and answers it without a detour. They become `silent`:
    the client does not know this server. On a bridge of this host answers do come by."""
    interface, routing = _interface(scene, way), scene.host.routing
    if interface is None or interface.kind == "bridge" or routing is None or scene.iif is None:
        return states
    if scene.vantage is Vantage.LOCAL or size(scene.saddr.base) > 1:
        return states
    left: States = {}
    for packet, cubes in states.items():
        route = routing.lookup(scene.family, MAIN, int.from_bytes(packet.daddr))
        if packet.snatted or route is None or route.gateway or route.interface != interface.index:
            add(left, packet, cubes)
            continue
        network: Ranges = ((route.prefix.low, route.prefix.high),)
        _part(cubes, [(scene.iif, way.base), (scene.saddr, network)], packet, left, silent)
    return left


def _interface(scene: Scene, way: Var) -> Interface | None:
    """The one that `way` is; None where it may be several."""
    found = [each for each in scene.host.interfaces if way.base == ((each.index, each.index),)]
    return found[0] if found else None


def _part(cubes: tuple[Cube, ...], box: Box, packet: Packet, left: States, silent: States) -> None:
    for cube in cubes:
        inside, outside = cube.split(box)
        if outside:
            add(left, packet, outside)
        if inside is not None:
            add(silent, packet, (inside,))
