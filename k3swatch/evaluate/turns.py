"""From one packet of a connection to the next: who has it then, what is known of it by now, what its loss means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from k3swatch.evaluate.cells import Cells
from k3swatch.evaluate.cube import Cube, Kind, Var, exceeds, simplify
from k3swatch.evaluate.header import PSH, pushed
from k3swatch.evaluate.outcome import Fate
from k3swatch.evaluate.packet import Packet, of_connection
from k3swatch.evaluate.states import States, add, merged
from k3swatch.evaluate.walk import Walk

Marks = dict[Cells, tuple[Cube, ...]]  # of connections, and whose

MOST_TOLD_APART = 8  # cubes of one packet that are carried on to the next as they are
NO_DATA = "refused where it only acknowledges: what comes of it depends on who speaks first"


def later(states: States, mark: Cells, first: bool = False) -> States:
    """The next packet of the same connections, from its other end; `first`: these are their first."""
    result: States = {}
    for packet, cubes in states.items():
        now = Packet(
            packet.daddr,
            packet.dport,
            mark,
            ctmark=packet.ctmark,
            dialled=packet.dialled,
            snatted=packet.snatted,
            alias=packet.alias,
            renamed=packet.renamed,
            turned=packet.turned,
            reached=packet.reached or (packet.dialled and (packet.daddr, packet.dport)),
            begun=packet.begun or (first and packet.tracked),
            home=packet.zone if first else packet.home,
            connected=packet.tracked and of_connection(packet),
        )
        add(result, now, cubes if len(cubes) <= MOST_TOLD_APART else _of_connections(cubes))
    return merged(result)


def _of_connections(cubes: Sequence[Cube]) -> tuple[Cube, ...]:
    """Whose the connections are, whatever had to hold for the packets before. Some of them may not be there any more,
    and are lost twice: what is said of them then is no less true.
    """
    return simplify(
        Cube(tuple((var, ranges) for var, ranges in cube.items if var.kind is Kind.FIELD)) for cube in cubes
    )


def again(states: States) -> States:
    """As the client sends them: to where it dialled."""
    result: States = {}
    for packet, cubes in states.items():
        daddr, dport = packet.dialled or (packet.daddr, packet.dport)
        add(result, replace(packet, daddr=daddr, dport=dport), cubes)
    return result


def marks(states: States) -> Marks:
    """Which mark of the connection whose packets come with."""
    result: Marks = {}
    for packet, cubes in states.items():
        result[packet.ctmark] = (*result.get(packet.ctmark, ()), *cubes)
    return result


def another(now: Marks, seen: Marks) -> bool:
    """Whether any connection comes with a mark that it was not seen with. Of one mark there is nobody new: connections
    get lost, but none is found.
    """
    if len(seen) == 1 and now.keys() <= seen.keys():
        return False
    return any(exceeds(cubes, seen.get(mark, ())) for mark, cubes in now.items())


def note(now: Marks, seen: Marks) -> None:
    """Put to what was seen."""
    for mark, cubes in now.items():
        seen[mark] = (*seen.get(mark, ()), *cubes)


def carrying(walk: Walk, states: States, begin: int) -> States:
    """The connections whose later packets arrive, those that end what one end says (with PSH: every request and
    every response has one). Where only those with PSH are lost, by the outcomes from `begin` on, the connection is.
    """
    var = pushed(walk.turn)
    for place, end in enumerate(walk.outcomes[begin:], begin):
        if end.fate not in (Fate.DROPPED, Fate.REJECTED):
            continue
        cube = _with_data(end.cube, var)
        if cube is not None:
            walk.outcomes[place] = replace(end, cube=cube)
        else:
            cube = end.cube.replace(var, var.base)
            walk.outcomes[place] = replace(end, fate=Fate.UNKNOWN, cube=cube, why=NO_DATA)
    result: States = {}
    for packet, cubes in states.items():
        left = [some for some in (_with_data(cube, var) for cube in cubes) if some is not None]
        if left:
            add(result, packet, left)
    return merged(result)


def _with_data(cube: Cube, var: Var) -> Cube | None:
    """The part of the cube with PSH, whatever else; None where there is none."""
    some = cube.restrict(var, ((PSH, PSH),))
    return None if some is None else some.replace(var, var.base)
