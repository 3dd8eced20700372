"""What a packet meets below IP, on its way in and out: chains of the netdev and bridge families, and inet's ingress.

They can drop it, mark it, overwrite it, or send it off by another interface. Each sees only its own devices: what it
does holds for packets that pass them. Devices rest upon each other, and a packet climbs them: a bridge's port, the
bridge's own chains, the bridge, a VLAN on it (__netif_receive_skb_core, br_handle_frame); on the way out it descends.

Where br_netfilter has a bridge show its frames to IP, prerouting chains of IP come before the bridge's input chains
(br_nf_pre_routing), which then see where NAT sends the packet. One that NAT sends back to the same bridge is bridged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from k3swatch.evaluate.crossroads import leads
from k3swatch.evaluate.cube import Box, Cube, Kind, Var
from k3swatch.evaluate.packet import Discovery, Packet, Scene
from k3swatch.evaluate.ranges import normal
from k3swatch.evaluate.states import States, add, merged
from k3swatch.evaluate.walk import Walk
from k3swatch.model.port import Host, Interface
from k3swatch.model.ruleset import FORWARD, INPUT, OUTPUT, POSTROUTING, PREROUTING, BaseChain

NFPROTO_NETDEV, NFPROTO_BRIDGE = 5, 7
NETDEV_INGRESS, NETDEV_EGRESS, INET_INGRESS = 0, 1, 5
BEFORE_CONNTRACK = -1000
BRNF = 0  # NF_BR_PRI_BRNF; what has the same priority is registered later, and so runs before it

Run = Callable[[Scene, BaseChain, States], States]


@dataclass(frozen=True, slots=True)
class _Step:
    """A chain, the device it hangs on (or the bridge), and whether IP's prerouting chains come before it."""

    chain: BaseChain
    device: Interface
    late: bool = False


def arriving(walk: Walk, scene: Scene, states: States, run: Run, late: bool = False) -> States:
    """The packets that get to IP by `scene.iif`; `run` walks one base chain. `late`: what is left of the way of those
    that pass IP's prerouting chains before. `scene.oif`, if known, is where they will go from here.
    """
    for step in _upwards(walk, scene):
        if step.late is late and states:
            states = _passing(scene, states, step, True, run)
    return states


def leaving(walk: Walk, scene: Scene, states: States, run: Run) -> States:
    """The packets that get out by `scene.oif`."""
    for step in _downwards(walk, scene):
        if states:
            states = _passing(scene, states, step, False, run)
    return states


def _devices(host: Host) -> list[Interface]:
    return sorted(host.interfaces, key=lambda each: host.heights[each.index])


def _on(chains: Sequence[BaseChain], device: Interface) -> list[BaseChain]:
    mine = [chain for chain in chains if device.name in (chain.device or "").split(",")]
    return sorted(mine, key=lambda chain: chain.priority)


def _of_bridges(walk: Walk, *hooks: int) -> list[BaseChain]:
    found = [chain for hook in hooks for chain in walk.base_chains(hook, NFPROTO_BRIDGE)]
    return sorted(found, key=lambda chain: (hooks.index(chain.hook), chain.priority))


def _upwards(walk: Walk, scene: Scene) -> Iterator[_Step]:
    chains, host = walk.base_chains, scene.host
    ingress = [*chains(NETDEV_INGRESS, NFPROTO_NETDEV)]
    if scene.protocol is not Discovery.ARP:  # nft_do_chain_inet_ingress
        ingress += chains(INET_INGRESS, scene.family.nfproto)
    bridged = _of_bridges(walk, PREROUTING, FORWARD, INPUT)
    if not ingress and not bridged:
        return
    shown = host.showing(scene.family)
    over = {upper for index in shown for upper in host.above(index)}
    for device in _devices(host):
        for chain in bridged if device.kind == "bridge" else ():
            late = device.index in shown and (chain.hook != PREROUTING or chain.priority > BRNF)
            if late or chain.hook != FORWARD:
                yield _Step(chain, device, late)
        for chain in _on(ingress, device):
            yield _Step(chain, device, device.index in over)


def _downwards(walk: Walk, scene: Scene) -> Iterator[_Step]:
    egress = walk.base_chains(NETDEV_EGRESS, NFPROTO_NETDEV)
    bridged = _of_bridges(walk, OUTPUT, POSTROUTING)
    if not egress and not bridged:
        return
    for device in reversed(_devices(scene.host)):
        for chain in _on(egress, device):
            yield _Step(chain, device)
        for chain in bridged if device.kind == "bridge" else ():
            yield _Step(chain, device)


def _passing(scene: Scene, states: States, step: _Step, incoming: bool, run: Run) -> States:
    """Run one chain on the packets that pass its device."""
    chain, device = step.chain, step.device
    top = scene.iif if incoming else scene.oif
    of_bridge = chain.ref.family == "bridge"
    if top is None:
        return states
    aside: States = {}
    if (
        device.index in scene.host.showing(scene.family)
        and chain.hook != POSTROUTING
        and (step.late or not incoming)
    ):
        states, aside = _bridged(scene, states, device)
        if not of_bridge or chain.hook != FORWARD:
            states, aside = aside, states
    seen = _seen(scene, step, top, incoming)
    for upper, ports in scene.host.above(device.index).items():
        box: Box = [(top, ((upper, upper),))]
        for port, master in ports:
            if len(scene.host.ports(master)) > 1:
                box.append((_port(scene, master, incoming), ((port, port),)))
        inside, rest = _parted(states, box)
        if inside:
            for packet, cubes in run(seen, chain, inside).items():
                add(rest, packet, cubes)
            states = merged(rest)
    for packet, cubes in aside.items():
        add(states, packet, cubes)
    return states


def _bridged(scene: Scene, states: States, bridge: Interface) -> tuple[States, States]:
    """What NAT sends back to the bridge that it came by (br_nf_pre_routing_finish), and all else."""
    here = ((bridge.index, bridge.index),)
    box: Box = [(way, here) for way in (scene.iif, scene.oif) if way is not None]
    turned = {
        packet: cubes
        for packet, cubes in states.items()
        if packet.turned is not None and (scene.oif is not None or leads(scene, packet) == bridge.index)
    }
    inside, outside = _parted(turned, box)
    for packet, cubes in states.items():
        if packet not in turned:
            add(outside, packet, cubes)
    return inside, outside


def _seen(scene: Scene, step: _Step, top: Var, incoming: bool) -> Scene:
    """The scene as a chain sees it: a frame on a device, or between two ports of a bridge."""
    chain, device = step.chain, step.device
    early = chain.priority if chain.ref.family == "bridge" else BEFORE_CONNTRACK
    seen = replace(
        scene,
        top=top,
        bridge=device.index if chain.ref.family == "bridge" else 0,
        hook=chain.hook,
        priority=early if incoming and not step.late else max(chain.priority, 0),
    )
    if chain.ref.family != "bridge":
        way = Var("device", ((device.index, device.index),), Kind.FIELD, "device")
        return replace(seen, iif=way if incoming else None, oif=None if incoming else way)
    near, far = _port(scene, device.index, incoming), _port(scene, device.index, not incoming)
    if chain.hook == FORWARD:
        return replace(seen, iif=near, oif=far)
    return replace(seen, iif=near if incoming else None, oif=None if incoming else near)


def _port(scene: Scene, master: int, incoming: bool) -> Var:
    """By which port of a bridge or bond: answers go out by the one that the client's packets come in by."""
    ports = normal([(index, index) for index in scene.host.ports(master)]) or ((1, 2**31 - 1),)
    side = "port" if incoming is scene.from_client else "far port"
    return Var(f"{side} {master}", ports, Kind.FIELD, "through")


def _parted(states: States, box: Box) -> tuple[States, States]:
    """Where `box` holds, and where it does not."""
    inside: States = {}
    outside: States = {}
    for packet, cubes in states.items():
        for cube in cubes:
            within, without = cube.split(box)
            _put(outside, packet, without)
            _put(inside, packet, [within] if within is not None else [])
    return inside, outside


def _put(states: States, packet: Packet, cubes: list[Cube]) -> None:
    if cubes:
        add(states, packet, cubes)
