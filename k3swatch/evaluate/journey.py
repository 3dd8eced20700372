"""The whole way of a connection to a protected port: the first packet, the answer, and what the client sends next.

From outside: prerouting, then input; or, when NAT has sent it elsewhere, forward and postrouting. From this host:
output, postrouting, and then, through the loopback interface, prerouting and input too; conntrack and NAT have been
decided by then. Answers go the other way round. A connection is only there when all three get through: what drops
answers, or everything but the first packet, blocks the port as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from k3swatch.evaluate.arrival import admitted, forwarded
from k3swatch.evaluate.aside import bridged, directly
from k3swatch.evaluate.cells import Cells, little
from k3swatch.evaluate.crossroads import answered, by_interface, routed
from k3swatch.evaluate.cube import EVERYTHING, Cube, Kind, Var, simplify
from k3swatch.evaluate.hooks import hook, run
from k3swatch.evaluate.ingress import arriving, leaving
from k3swatch.evaluate.outcome import Fate, Outcome, Target
from k3swatch.evaluate.packet import (
    EPHEMERAL,
    NO_MARK,
    SERVER_UID,
    Packet,
    Scene,
    Turn,
    Turned,
    is_local,
)
from k3swatch.evaluate.ranges import size
from k3swatch.evaluate.walk import States, Walk, add, merged
from k3swatch.model.ruleset import FORWARD, INPUT, OUTPUT, POSTROUTING, PREROUTING
from k3swatch.model.words import Mechanism, Vantage


def outcomes(walk: Walk, scene: Scene, daddr: bytes, dport: int, backwards: bool = False) -> list[Outcome]:
    """Every way a connection to this address and port can end; what no outcome covers is delivered.

    `backwards`: chains of equal priority the other way round. `walk.tied` says whether that could matter.
    Raises Interrupted when the ruleset changed meanwhile, SourceError when the base chains cannot be read.
    """
    walk.outcomes, walk.tied, walk.backwards = [], (), backwards
    walk.turn, walk.phased = Turn.FIRST, False
    silent: States = {}  # whom nobody answers, or not by this host: nothing more is asked about them
    there = _to_server(walk, scene, {scene.first_packet(daddr, dport): (EVERYTHING,)}, dport, silent)
    _overwritten(walk, there, daddr, dport)
    mapped = len(walk.outcomes)
    there = {packet: cubes for packet, cubes in there.items() if not packet.sent and packet.shadow is None}
    walk.turn = Turn.ANSWER
    back = _to_client(walk, scene.but(turn=Turn.ANSWER), _later(there, NO_MARK), dport, silent)
    if walk.phased:
        walk.turn = Turn.NEXT
        back = _again(_later(back, little(scene.mark, 4)))
        back = _to_server(walk, scene.but(turn=Turn.NEXT), back, dport, silent)
    for packet, cubes in silent.items():
        add(back, packet, cubes)
    _narrowed(walk, mapped, back)
    return walk.outcomes


def _to_server(walk: Walk, scene: Scene, states: States, dport: int, silent: States) -> States:
    """What arrives of packets that the client sends: here, or out of this host."""
    if scene.vantage is Vantage.EXTERNAL:
        scene = scene.but(uid=None)
        states = admitted(walk, scene, _received(walk, scene, states, dport))
        here, away = _parted(walk, scene, states)
        here = hook(walk, _demultiplexed(scene, dport), INPUT, here, dport, late=True)
        for oif, going in away:
            on = scene.but(oif=oif)
            going = bridged(scene, oif, going, silent)
            going = hook(walk, on, FORWARD, forwarded(walk, scene, going), dport, late=True)
            here.update(_sent_out(walk, on, going, dport))
        return here
    loopback = _loopback(scene, "iif")
    scene = scene.but(oif=_loopback(scene, "oif"))
    states = hook(walk, scene, OUTPUT, states, dport)
    here, away = _parted(walk, scene, states)
    here = _sent_out(walk, scene, here, dport)
    inside = scene.but(iif=loopback, oif=None, uid=None)
    here = _received(walk, inside, here, dport, nat=False, late=True)
    here = _staying(walk, scene, here)
    here = hook(walk, inside, INPUT, here, dport, nat=False, late=True)
    for oif, going in away:
        here.update(_sent_out(walk, scene.but(oif=oif), going, dport))
    return here


def _to_client(walk: Walk, scene: Scene, states: States, dport: int, silent: States) -> States:
    """What arrives of the server's answers, from here or from elsewhere."""
    local = scene.vantage is Vantage.LOCAL
    scene = scene.but(sport=_usual(scene.sport))
    back: States = {}
    here = {packet: cubes for packet, cubes in states.items() if is_local(scene.host, packet.daddr)}
    away = {packet: cubes for packet, cubes in states.items() if packet not in here}
    if here:
        client = _loopback(scene, "oif") if local else _answered(scene)
        out = scene.but(iif=None, oif=client, uid=_server(scene, dport))
        here = answered(walk, out, hook(walk, out, OUTPUT, here, dport))
        here = _sent_out(walk, out, here, dport)
        if local:
            inside = scene.but(iif=_loopback(scene, "iif"), oif=None, uid=None)
            here = _received(walk, inside, here, dport, late=True)
            here = hook(walk, inside, INPUT, here, dport, late=True)
        back.update(here)
    for way, coming in by_interface(scene, away):
        inside = scene.but(iif=way, oif=None, uid=None)
        coming = directly(scene, way, coming, silent)
        through = inside if local else inside.but(oif=_answered(scene))
        coming = answered(walk, inside, _received(walk, through, coming, dport))
        if local:
            back.update(hook(walk, inside, INPUT, coming, dport, late=True))
            continue
        coming = hook(walk, through, FORWARD, forwarded(walk, inside, coming), dport, late=True)
        back.update(_sent_out(walk, through, coming, dport))
    return back


def _received(
    walk: Walk, scene: Scene, states: States, dport: int, nat: bool = True, late: bool = False
) -> States:
    """What comes in on an interface and passes IP's prerouting chains."""
    walked = partial(run, walk)
    states = arriving(walk, scene, states, walked)
    states = hook(walk, scene.but(oif=None), PREROUTING, states, dport, nat, late)
    return arriving(walk, scene, states, walked, late=True)


def _sent_out(walk: Walk, scene: Scene, states: States, dport: int) -> States:
    """What passes IP's postrouting chains and leaves by an interface."""
    states = hook(walk, scene, POSTROUTING, states, dport, late=True)
    return leaving(walk, scene, states, partial(run, walk))


def _later(states: States, mark: Cells) -> States:
    """The next packet of the same connections, from its other end."""
    result: States = {}
    for packet, cubes in states.items():
        now = Packet(
            packet.daddr,
            packet.dport,
            mark,
            ctmark=packet.ctmark,
            zone=packet.zone,
            dialled=packet.dialled,
            snatted=packet.snatted,
            turned=packet.turned,
            reached=packet.reached or (packet.dialled and (packet.daddr, packet.dport)),
            connected=packet.tracked and packet.connected,
        )
        add(result, now, cubes)
    return merged(result)


def _again(states: States) -> States:
    """As the client sends them: to where it dialled."""
    result: States = {}
    for packet, cubes in states.items():
        daddr, dport = packet.dialled or (packet.daddr, packet.dport)
        add(result, replace(packet, daddr=daddr, dport=dport), cubes)
    return result


def _usual(sport: Var) -> Var:
    """The port that answers go to: one that systems choose by themselves. Who refuses answers to port 25 means mail."""
    return sport if size(sport.base) == 1 else Var(sport.name, EPHEMERAL, sport.kind, sport.words)


def _demultiplexed(scene: Scene, dport: int) -> Scene:
    """In the input hook a packet of a connection that exists has its socket already (tcp_v4_early_demux); not one that
    has come over loopback, which is routed already and so is not looked up (ip_rcv_finish_core)."""
    return scene if scene.turn is Turn.FIRST else scene.but(uid=_server(scene, dport))


def _server(scene: Scene, dport: int) -> Var:
    """The user of the socket that answers; known where all that listen on the port are one user's."""
    uids = {s.uid for s in scene.host.sockets or () if s.port == dport and s.protocol is scene.protocol}
    base = ((min(uids), max(uids)),) if len(uids) == 1 else SERVER_UID.base
    return Var(SERVER_UID.name, base, SERVER_UID.kind, SERVER_UID.words)


def _loopback(scene: Scene, name: str) -> Var:
    index = scene.loopback[0]
    return Var(name, ((index, index),), Kind.FIELD, name)


def _answered(scene: Scene) -> Var:
    """The interface that answers leave by: taken to be the one the client's packets come in on."""
    assert scene.iif is not None
    return scene.iif


def _parted(walk: Walk, scene: Scene, states: States) -> tuple[States, list[tuple[Var, States]]]:
    """Those that stay on this host, and those that NAT sends elsewhere, by the interface they leave by. One whose
    destination was overwritten with somebody else's address leaves here.
    """
    return routed(walk, scene, _staying(walk, scene, states))


def _staying(walk: Walk, scene: Scene, states: States) -> States:
    left: States = {}
    for packet, cubes in states.items():
        if packet.sent and not is_local(scene.host, packet.daddr):
            _sent(walk, packet, cubes)
        else:
            left[packet] = cubes
    return left


def _overwritten(walk: Walk, states: States, daddr: bytes, dport: int) -> None:
    """Note where a destination overwritten without a connection ends, if not where it was dialled.

    At the port itself under another name it arrives, but nobody translates the answers.
    """
    for packet, cubes in states.items():
        if not packet.sent or packet.turned is not None:
            continue
        if packet.dport != dport:
            _sent(walk, packet, cubes)
        elif (packet.dialled or (packet.daddr, packet.dport)) != (daddr, dport):
            why = "the destination is overwritten without a connection: answers come from another address"
            for cube in cubes:
                walk.outcomes.append(Outcome(Fate.UNKNOWN, cube, packet.sent, why=why, shadow=packet.shadow))


def _sent(walk: Walk, packet: Packet, cubes: Sequence[Cube]) -> None:
    target = Target(packet.daddr, packet.daddr, packet.dport, packet.dport)
    for cube in cubes:
        walk.outcomes.append(
            Outcome(Fate.MAPPED, cube, packet.sent, Mechanism.DNAT, target, packet.shadow, packet=packet)
        )


def _narrowed(walk: Walk, mapped: int, back: States) -> None:
    """Outcomes (the first `mapped`) that say where NAT sends a connection, without what is lost on the way there or
    back: that has outcomes of its own.
    """
    lost = {end.packet.turned for end in walk.outcomes if end.packet is not None and end.packet.turned}
    if not lost:
        return
    arrived: dict[Turned, list[Cube]] = {}
    for packet, cubes in back.items():
        if packet.turned in lost and packet.turned is not None:
            arrived.setdefault(packet.turned, []).extend(cubes)
    told: set[Turned] = set()
    kept: list[Outcome] = []
    for end in walk.outcomes:
        turned = _turned(end)
        if turned is None or turned not in lost:
            kept.append(end)
        elif turned not in told:
            told.add(turned)
            kept += [replace(end, cube=cube) for cube in simplify(arrived.get(turned, ()))]
    walk.outcomes[:] = kept


def _turned(end: Outcome) -> Turned | None:
    """What a packet carries that this outcome sends elsewhere; None for any other outcome."""
    if end.fate is not Fate.MAPPED or end.shadow is not None or end.target is None or end.packet is None:
        return None
    return None if end.packet.turned is not None else Turned(end.path, end.mechanism, end.target)
