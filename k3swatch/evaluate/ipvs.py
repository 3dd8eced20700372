"""IPVS: whose virtual server a packet is for, and where it goes from there.

Follows ip_vs_in, ip_vs_service_find, ip_vs_schedule, ip_vs_leave and the ip_vs_*_xmit functions
(net/netfilter/ipvs). Only first packets are scheduled; the answers of one that IPVS took come back on its own way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from k3swatch.evaluate.cells import equal
from k3swatch.evaluate.cube import Cube, Kind, Var
from k3swatch.evaluate.outcome import Fate, Target
from k3swatch.evaluate.packet import Discovery, Packet, Scene, is_local
from k3swatch.evaluate.states import States, add, merged
from k3swatch.evaluate.walk import Walk
from k3swatch.model.expr import Code
from k3swatch.model.finding import Finding
from k3swatch.model.ipvs import IPVS, PERSISTENT, Method, RealServer, VirtualServer
from k3swatch.model.port import Host, family_of
from k3swatch.model.ruleset import INPUT, OUTPUT, BaseChain, ChainRef, Rule
from k3swatch.model.words import Family, Mechanism, Protocol, State, Vantage

# ip_vs_ops: ip_vs_remote_request4 at NF_IP_PRI_NAT_SRC - 1, ip_vs_local_request4 at NF_IP_PRI_NAT_DST + 2
_PRIORITY = {INPUT: 99, OUTPUT: -98}
_FTP, _UNPRIVILEGED = 21, 1024

Way = tuple[Vantage, str]


def hooked(host: Host, number: int) -> list[BaseChain]:
    """The place of IPVS among a hook's base chains, where it has virtual servers at all."""
    if not host.services or number not in _PRIORITY:
        return []
    ref = ChainRef(IPVS, "", "")
    return [BaseChain(ref, IPVS, number, _PRIORITY[number], Code.ACCEPT, order=1 << 30)]


def unread(host: Host, ways: Sequence[Way], family: Family) -> Iterator[Finding]:
    """One finding for each way in, when there is an IPVS that cannot be read."""
    if host.services is None:
        for vantage in Vantage:
            there = tuple(address for way, address in ways if way is vantage and _of(address) is family)
            if there:
                why = "the kernel has IPVS, whose virtual servers cannot be read: they may take the port"
                yield Finding(State.UNKNOWN, Mechanism.IPVS, vantage, family, there, certain=False, why=why)


def _of(address: str) -> Family:
    return Family.IP6 if ":" in address else Family.IP


def balance(walk: Walk, scene: Scene, states: States) -> States:
    """The packets that IPVS leaves on this host; what it does with the others are outcomes of the walk."""
    result: States = {}
    for packet, cubes in states.items():
        if packet.balanced or packet.turned is not None or packet.shadow is not None:
            add(result, packet, cubes)
            continue
        for cube in cubes:
            for service, part in _found(scene, packet, cube):
                for after, there in _scheduled(walk, scene, service, packet, part):
                    add(result, after, (there,))
    return merged(result)


def _found(scene: Scene, packet: Packet, cube: Cube) -> Iterator[tuple[VirtualServer | None, Cube]]:
    """The virtual server for each part of the cube; None: for nobody's."""
    services = [each for each in scene.host.services or () if each.family is scene.family]
    left = [cube]
    for service in services:
        if service.fwmark:
            rest: list[Cube] = []
            for part in left:
                box = equal(packet.mark, service.fwmark.to_bytes(4, "little"), part)
                inside, outside = (None, [part]) if box is None else part.split(box)
                rest += outside
                if inside is not None:
                    yield service, inside
            left = rest
    found = _by_address(services, scene.protocol, packet)
    for part in left:
        yield found, part


def _by_address(
    services: Sequence[VirtualServer], protocol: Protocol | Discovery, packet: Packet
) -> VirtualServer | None:
    """The exact one; else one for FTP, whose data connections may be to any port; else one for every port."""
    at = {
        service.port: service
        for service in services
        if service.address is not None
        and service.address.packed == packet.daddr
        and service.protocol == protocol.number
    }
    found = at.get(packet.dport)
    if found is None and protocol is Protocol.TCP and packet.dport >= _UNPRIVILEGED:
        found = at.get(_FTP)
    return found or at.get(0)


def _scheduled(
    walk: Walk, scene: Scene, service: VirtualServer | None, packet: Packet, cube: Cube
) -> Iterator[tuple[Packet, Cube]]:
    """The part that stays here, with its destination as it is then."""
    if service is None:
        yield packet, cube
        return
    rule = (Rule(ChainRef(IPVS, service.kind, service.name), 0, str(service).encode()),)
    chosen = [server for server in service.servers if server.weight > 0]
    if not service.fwmark and service.port != packet.dport and not service.flags & PERSISTENT:
        if service.port == _FTP:
            yield packet, cube  # ip_vs_leave: not its business
            return
        chosen = []
    if not chosen:
        walk.note(Fate.REJECTED, packet, cube, rule)
        return
    # a persistent one translates to its real server's port only what was sent to its own (ip_vs_sched_persist)
    translates = not service.flags & PERSISTENT or service.port == packet.dport
    words = f"by {service.scheduler}"
    by = Var(f"server of {service.kind} {service.name}", ((0, len(chosen) - 1),), Kind.CHANCE, words)
    for index, server in enumerate(chosen):
        part = cube.split([(by, ((index, index),))])[0]
        if part is not None:
            port = server.port if translates and server.port else packet.dport
            yield from _sent(walk, scene, rule, replace(server, port=port), packet, part)


def _sent(
    walk: Walk, scene: Scene, rule: tuple[Rule, ...], server: RealServer, packet: Packet, cube: Cube
) -> Iterator[tuple[Packet, Cube]]:
    here = family_of(server.address) is scene.family and is_local(scene.host, server.address.packed)
    if here and server.method is not Method.MASQ:
        # what is here already is neither routed nor tunnelled: it arrives as it was dialled
        yield replace(packet, balanced=True), cube
        return
    port = server.port if server.method is Method.MASQ else packet.dport
    if here and server.address.is_loopback and scene.vantage is Vantage.EXTERNAL:
        walk.note(Fate.DROPPED, packet, cube, rule)  # ip_vs_nat_xmit: no translation to loopback from outside
    elif here and port == packet.dport:
        yield replace(packet, daddr=server.address.packed, balanced=True), cube
    else:
        target = Target(server.address.packed, server.address.packed, port, port)
        walk.note(Fate.MAPPED, packet, cube, rule, Mechanism.IPVS, target)
