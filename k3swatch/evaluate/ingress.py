"""What a packet from outside meets before IP does: chains of the netdev and bridge families, and inet's ingress.

They can drop it, mark it, overwrite it or send it off by another interface (nft_fwd_netdev.c). There is no
connection yet. Each sees only its own devices: what it does holds for packets that arrive by them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from k3swatch.evaluate.cube import YES, Box, Cube, Kind, Var, flag
from k3swatch.evaluate.packet import Packet, Scene
from k3swatch.evaluate.ranges import Ranges, normal
from k3swatch.evaluate.walk import States, Walk, add, merged
from k3swatch.model.ruleset import INPUT, PREROUTING, BaseChain

NFPROTO_NETDEV, NFPROTO_BRIDGE = 5, 7
NETDEV_INGRESS, INET_INGRESS = 0, 5
BEFORE_CONNTRACK = -1000

Run = Callable[[Scene, BaseChain, States], States]


def before_ip(walk: Walk, scene: Scene, states: States, run: Run) -> States:
    """The packets that reach prerouting; `run` walks one base chain."""
    chains = walk.ruleset.base_chains
    ingress = [*chains(NETDEV_INGRESS, NFPROTO_NETDEV), *chains(INET_INGRESS, scene.family.nfproto)]
    for chain in sorted(ingress, key=lambda chain: chain.priority):
        for device in (chain.device or "").split(","):
            for box, index in _through(scene, device):
                states = _some(scene, states, chain, run, box, index, BEFORE_CONNTRACK)
    bridges = [each.index for each in scene.host.interfaces if each.kind == "bridge"]
    bridged = [*chains(PREROUTING, NFPROTO_BRIDGE), *chains(INPUT, NFPROTO_BRIDGE)]
    if bridges and scene.iif is not None:
        box = [(scene.iif, normal([(index, index) for index in bridges]))]
        for chain in sorted(bridged, key=lambda chain: (chain.hook, chain.priority)):
            states = _some(scene, states, chain, run, box, None, chain.priority)
    return states


def _through(scene: Scene, device: str) -> Iterator[tuple[Box, int]]:
    """What holds for packets that come by a device, and its index.

    One without an address is taken for a port of something else, which then is where IP sees them arrive.
    """
    owners = {entry.interface for entry in scene.host.addresses}
    for interface in scene.host.interfaces:
        if interface.name != device or interface.loopback or scene.iif is None:
            continue
        if interface.index in owners:
            yield [(scene.iif, ((interface.index, interface.index),))], interface.index
        else:
            yield [(flag(f"through {device}", Kind.FIELD), YES)], interface.index


def _some(
    scene: Scene, states: States, chain: BaseChain, run: Run, box: Box, index: int | None, priority: int
) -> States:
    """Run a chain on the packets for which `box` holds, as it sees them: come by `index` (None: by any port)."""
    inside: States = {}
    rest: States = {}
    for packet, cubes in states.items():
        for cube in cubes:
            within, without = cube.split(box)
            _put(rest, packet, without)
            _put(inside, packet, [within] if within is not None else [])
    if not inside:
        return states
    assert scene.iif is not None
    ports: Ranges = scene.iif.base if index is None else ((index, index),)
    name = f"iif {chain.ref.family}" if index is None else "iif"
    seen = replace(scene, iif=Var(name, ports, Kind.FIELD, "bridge port"), hook=chain.hook, priority=priority)
    for packet, cubes in run(seen, chain, inside).items():
        add(rest, packet, cubes)
    return merged(rest)


def _put(states: States, packet: Packet, cubes: list[Cube]) -> None:
    if cubes:
        add(states, packet, cubes)
