"""The ways through the hooks: of what the client sends, and of what the server answers.

From outside: prerouting, then input; or, when NAT has sent it elsewhere, forward and postrouting. From this host:
output, postrouting, and then, through the loopback interface, prerouting and input too; conntrack and NAT have been
decided by then. Answers go the other way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from k3swatch.evaluate.arrival import admitted, forwarded
from k3swatch.evaluate.aside import bridged, directly
from k3swatch.evaluate.crossroads import answered, by_interface, leads, routed
from k3swatch.evaluate.cube import Cube, Kind, Var
from k3swatch.evaluate.header import BY_ALIAS
from k3swatch.evaluate.hooks import hook, run
from k3swatch.evaluate.ingress import arriving, leaving
from k3swatch.evaluate.outcome import Fate, Outcome, Target
from k3swatch.evaluate.packet import EPHEMERAL, SERVER_UID, Packet, Scene, Turn, is_local
from k3swatch.evaluate.ranges import normal, size
from k3swatch.evaluate.states import States, add
from k3swatch.evaluate.walk import Walk
from k3swatch.model.ruleset import FORWARD, INPUT, OUTPUT, POSTROUTING, PREROUTING
from k3swatch.model.words import Mechanism, Vantage


def to_server(walk: Walk, scene: Scene, states: States, dport: int, silent: States) -> States:
    """What arrives of packets that the client sends: here, or out of this host."""
    if scene.vantage is Vantage.EXTERNAL:
        scene = scene.but(uid=None)
        states = admitted(walk, scene, received(walk, scene, states, dport))
        here, away = _parted(walk, scene, states)
        demultiplexed = _by_server(scene, here) if scene.turn is not Turn.FIRST else [(None, here)]
        here = {}
        for uid, part in demultiplexed:
            _put(here, hook(walk, scene.but(uid=uid), INPUT, part, dport, late=True))
        for oif, going in away:
            on = scene.but(oif=oif)
            going = bridged(scene, oif, going, silent)
            going = hook(walk, on, FORWARD, forwarded(walk, scene, going), dport, late=True)
            _put(here, sent_out(walk, on, going, dport))
        return here
    loopback = _loopback(scene, "iif")
    scene = scene.but(oif=_loopback(scene, "oif"))
    states = hook(walk, scene, OUTPUT, states, dport)
    here, away = _parted(walk, scene, states)
    here = sent_out(walk, scene, here, dport)
    inside = scene.but(iif=loopback, oif=None, uid=None)
    here = received(walk, inside, here, dport, nat=False, late=True)
    here = _staying(walk, scene, here)
    here = hook(walk, inside, INPUT, here, dport, nat=False, late=True)
    for oif, going in away:
        _put(here, sent_out(walk, scene.but(oif=oif), going, dport))
    return here


def _put(states: States, more: States) -> None:
    for packet, cubes in more.items():
        add(states, packet, cubes)


def to_client(walk: Walk, scene: Scene, states: States, dport: int, silent: States) -> States:
    """What arrives of the server's answers, from here or from elsewhere."""
    local = scene.vantage is Vantage.LOCAL
    scene = scene.but(sport=_usual(scene.sport))
    back: States = {}
    ours = {packet: cubes for packet, cubes in states.items() if is_local(scene.host, packet.daddr)}
    away = {packet: cubes for packet, cubes in states.items() if packet not in ours}
    for uid, here in _by_server(scene, ours):
        client = _loopback(scene, "oif") if local else _answered(scene)
        out = scene.but(iif=None, oif=client, uid=uid)
        here = answered(walk, out, _put_out(walk, out, here, dport))
        here = sent_out(walk, out, here, dport)
        if local:
            inside = scene.but(iif=_loopback(scene, "iif"), oif=None, uid=None)
            here = received(walk, inside, here, dport, late=True)
            here = hook(walk, inside, INPUT, here, dport, late=True)
        _put(back, here)
    for way, coming in by_interface(scene, away):
        inside = scene.but(iif=way, oif=None, uid=None)
        coming = directly(scene, way, coming, silent)
        through = inside if local else inside.but(oif=_answered(scene))
        coming = answered(walk, inside, received(walk, through, coming, dport))
        if local:
            _put(back, hook(walk, inside, INPUT, coming, dport, late=True))
            continue
        coming = hook(walk, through, FORWARD, forwarded(walk, inside, coming), dport, late=True)
        _put(back, sent_out(walk, through, coming, dport))
    return back


def _put_out(walk: Walk, scene: Scene, states: States, dport: int) -> States:
    """What passes IP's output chains. They see the interface that leads to whom it is addressed to as it begins: where
    the input hook has given the client another address, to that one (nf_nat_ipv4_local_fn routes again, too late).
    """
    if not any(packet.snatted for packet in states):
        return hook(walk, scene, OUTPUT, states, dport)
    by_way: dict[Var | None, States] = {}
    for packet, cubes in states.items():
        by_way.setdefault(_first_way(scene, packet), {})[packet] = cubes
    passed: States = {}
    for oif, part in by_way.items():
        _put(passed, hook(walk, scene.but(oif=oif), OUTPUT, part, dport))
    return passed


def _first_way(scene: Scene, packet: Packet) -> Var | None:
    """The interface that an answer seems to leave by before source NAT is undone."""
    if not packet.snatted or (scene.vantage is Vantage.LOCAL and not packet.alias):
        return scene.oif
    if is_local(scene.host, packet.alias):
        return _loopback(scene, "oif")
    index = leads(scene, replace(packet, daddr=packet.alias)) if packet.alias else None
    return Var("oif", ((index, index),), Kind.FIELD, "oif") if index else _unknown_way(scene)


def _unknown_way(scene: Scene) -> Var:
    indexes = normal([(each.index, each.index) for each in scene.host.interfaces]) or ((1, 2**31 - 1),)
    return Var("oif before source NAT is undone", indexes, Kind.ENVIRONMENT, BY_ALIAS)


def received(
    walk: Walk, scene: Scene, states: States, dport: int, nat: bool = True, late: bool = False
) -> States:
    """What comes in on an interface and passes IP's prerouting chains."""
    walked = partial(run, walk)
    states = arriving(walk, scene, states, walked)
    states = hook(walk, scene.but(oif=None), PREROUTING, states, dport, nat, late)
    return arriving(walk, scene, states, walked, late=True)


def sent_out(walk: Walk, scene: Scene, states: States, dport: int) -> States:
    """What passes IP's postrouting chains and leaves by an interface."""
    states = hook(walk, scene, POSTROUTING, states, dport, late=True)
    return leaving(walk, scene, states, partial(run, walk))


def _usual(sport: Var) -> Var:
    """The port that answers go to: one that systems choose by themselves. Who refuses answers to port 25 means mail."""
    return sport if size(sport.base) == 1 else Var(sport.name, EPHEMERAL, sport.kind, sport.words)


def _by_server(scene: Scene, states: States) -> list[tuple[Var | None, States]]:
    """Packets of a connection that exists, by the user of the socket that they are from or, in the input hook, have
    already (tcp_v4_early_demux; not what has come over loopback, which is routed already: ip_rcv_finish_core).
    """
    by_port: dict[int, States] = {}
    for packet, cubes in states.items():
        tproxied = packet.turned is not None and packet.turned.mechanism is Mechanism.TPROXY
        port = packet.turned.target.port_low if packet.turned is not None and tproxied else packet.dport
        by_port.setdefault(port, {})[packet] = cubes
    return [(_server(scene, port), part) for port, part in by_port.items()]


def _server(scene: Scene, port: int) -> Var | None:
    """The user of the socket that answers; known where all that listen on the port are one user's. None where nobody
    listens: the kernel resets for itself (tcp_v4_send_reset).
    """
    if scene.host.sockets is None:
        return SERVER_UID
    uids = {s.uid for s in scene.host.sockets if s.port == port and s.protocol is scene.protocol}
    if not uids:
        return None
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
