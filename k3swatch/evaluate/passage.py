"""The ways through the hooks: of what the client sends, and of what the server answers.

From outside: prerouting, then input; or, when NAT has sent it elsewhere, forward and postrouting. From this host:
output, postrouting, and then, through the loopback interface, prerouting and input too; conntrack and NAT have been
decided by then. Answers go the other way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from k3swatch.evaluate.arrival import admitted, forwarded
from k3swatch.evaluate.aside import bridged, directly
from k3swatch.evaluate.crossroads import answered, by_interface, routed
from k3swatch.evaluate.cube import Cube, Kind, Var
from k3swatch.evaluate.hooks import hook, run
from k3swatch.evaluate.ingress import arriving, leaving
from k3swatch.evaluate.outcome import Fate, Outcome, Target
from k3swatch.evaluate.packet import EPHEMERAL, SERVER_UID, Packet, Scene, Turn, is_local
from k3swatch.evaluate.ranges import size
from k3swatch.evaluate.walk import States, Walk
from k3swatch.model.ruleset import FORWARD, INPUT, OUTPUT, POSTROUTING, PREROUTING
from k3swatch.model.words import Mechanism, Vantage


def to_server(walk: Walk, scene: Scene, states: States, dport: int, silent: States) -> States:
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


def to_client(walk: Walk, scene: Scene, states: States, dport: int, silent: States) -> States:
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
            sent(walk, packet, cubes)
        else:
            left[packet] = cubes
    return left


def sent(walk: Walk, packet: Packet, cubes: Sequence[Cube]) -> None:
    target = Target(packet.daddr, packet.daddr, packet.dport, packet.dport)
    for cube in cubes:
        walk.outcomes.append(
            Outcome(Fate.MAPPED, cube, packet.sent, Mechanism.DNAT, target, packet.shadow, packet=packet)
        )
