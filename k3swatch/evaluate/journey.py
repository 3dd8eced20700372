"""The whole of a connection to a protected port: the first packet, the answer, and what both ends send from then on.

A connection is only there when all of its packets get through: what drops answers, or everything but the first packet
of either end, blocks the port as well.
"""

from __future__ import annotations

from dataclasses import replace

from k3swatch.evaluate.cells import little
from k3swatch.evaluate.cube import EVERYTHING, Cube, simplify
from k3swatch.evaluate.outcome import Fate, Outcome
from k3swatch.evaluate.packet import NO_MARK, Scene, Turn, Turned
from k3swatch.evaluate.passage import sent, to_client, to_server
from k3swatch.evaluate.states import States, add
from k3swatch.evaluate.turns import Marks, again, another, carrying, later, marks, note
from k3swatch.evaluate.walk import Walk

MOST_ROUNDS = 8  # of packets that leave another mark with the connection each time


def outcomes(walk: Walk, scene: Scene, daddr: bytes, dport: int, backwards: bool = False) -> list[Outcome]:
    """Every way a connection to this address and port can end; what no outcome covers is delivered.

    `backwards`: chains of equal priority the other way round. `walk.tied` says whether that could matter.
    Raises Interrupted when the ruleset changed meanwhile, SourceError when the base chains cannot be read.
    """
    walk.outcomes, walk.tied, walk.backwards = [], (), backwards
    walk.turn, walk.phased = Turn.FIRST, False
    silent: States = {}  # whom nobody answers, or not by this host: nothing more is asked about them
    there = to_server(walk, scene, {scene.first_packet(daddr, dport): (EVERYTHING,)}, dport, silent)
    _overwritten(walk, there, daddr, dport)
    mapped = len(walk.outcomes)
    there = {packet: cubes for packet, cubes in there.items() if not packet.sent and packet.shadow is None}
    walk.turn, tell, walk.phased = Turn.ANSWER, walk.phased, False
    back = to_client(walk, scene.but(turn=Turn.ANSWER), later(there, NO_MARK, first=True), dport, silent)
    back = _onward(walk, scene, there, back, (tell, walk.phased), dport, silent)
    for packet, cubes in silent.items():
        add(back, packet, cubes)
    _narrowed(walk, mapped, back)
    return walk.outcomes


def _onward(
    walk: Walk, scene: Scene, there: States, back: States, tell: tuple[bool, bool], dport: int, silent: States
) -> States:
    """What is left of the connections that are there when both ends go on sending; `tell`: whether rules may tell a
    later packet from the first, of the client's and of the server's. If not, only a mark that was left with the
    connection makes the next packet different from the one before it.
    """
    client, server = tell
    asked: Marks = {}  # who has which mark, when the client's later packets were walked
    answered = {} if server else marks(there)
    for _ in range(MOST_ROUNDS):
        now = marks(back)
        if not another(now, answered) and not (client and another(now, asked)):
            return back
        note(now, asked)
        walk.turn, begin = Turn.NEXT, len(walk.outcomes)
        there = again(later(back, little(scene.mark, 4)))
        there = carrying(walk, to_server(walk, scene.but(turn=Turn.NEXT), there, dport, silent), begin)
        if not another(marks(there), answered):
            return there
        note(marks(there), answered)
        walk.turn, begin = Turn.LATER, len(walk.outcomes)
        back = later(there, NO_MARK)
        back = carrying(walk, to_client(walk, scene.but(turn=Turn.LATER), back, dport, silent), begin)
    for packet, cubes in back.items():
        for cube in cubes:
            walk.note(
                Fate.UNKNOWN, packet, cube, (), why="every packet leaves another mark with the connection"
            )
    return back


def _overwritten(walk: Walk, states: States, daddr: bytes, dport: int) -> None:
    """Note where a destination overwritten without a connection ends, if not where it was dialled.

    At the port itself under another name it arrives, but nobody translates the answers.
    """
    for packet, cubes in states.items():
        if not packet.sent or packet.turned is not None:
            continue
        if packet.dport != dport:
            sent(walk, packet, cubes)
        elif (packet.dialled or (packet.daddr, packet.dport)) != (daddr, dport):
            why = "the destination is overwritten without a connection: answers come from another address"
            for cube in cubes:
                walk.outcomes.append(Outcome(Fate.UNKNOWN, cube, packet.sent, why=why, shadow=packet.shadow))


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
    sent_by: dict[Turned | None, list[Cube]] = {}
    for end in walk.outcomes:
        sent_by.setdefault(_turned(end), []).append(end.cube)
    told: set[Turned] = set()
    kept: list[Outcome] = []
    for end in walk.outcomes:
        turned = _turned(end)
        if turned is None or turned not in lost:
            kept.append(end)
        elif turned not in told:
            told.add(turned)
            both = [mine.within(cube) for mine in sent_by[turned] for cube in arrived.get(turned, ())]
            kept += [replace(end, cube=cube) for cube in simplify(cube for cube in both if cube is not None)]
    walk.outcomes[:] = kept


def _turned(end: Outcome) -> Turned | None:
    """What a packet carries that this outcome sends elsewhere; None for any other outcome."""
    if end.fate is not Fate.MAPPED or end.shadow is not None or end.target is None or end.packet is None:
        return None
    return None if end.packet.turned is not None else Turned(end.path, end.mechanism, end.target)
